"""The settings of `slmx bench`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.run import cases

# A quick run has more rounds, because the rounds of nano are short and have much noise.
ROUNDS, QUICK_ROUNDS = 5, 15


@dataclass(frozen=True)
class BenchSettings:
    """What to measure.

    Attributes:
        out: The folder for the report and for the files that later runs reuse.
        bundles: Bundles to measure, in addition to the presets.
        presets: Presets to measure. None stands for nano to medium, or for none if there are bundles.
        variants: Variants and PyTorch runners to measure. None stands for all.
        threads: Numbers of threads, separated by commas. None stands for one and all cores.
        peers: Peers to measure. None stands for all.
        quick: Whether the defaults have few cases.
        text: Stories to measure quality on. None stands for the figures in the manifests.
        rounds: The number of rounds of every case.
        new_tokens: The number of tokens to decode in a round.
        command: The command line, for the report.
        trust: Whether to read TorchScript and .pt2 files of `bundles`. Reading them can run code.
    """

    out: Path
    bundles: tuple[Path, ...] = ()
    presets: tuple[str, ...] | None = None
    variants: tuple[str, ...] | None = None
    threads: str | None = None
    peers: tuple[str, ...] | None = None
    quick: bool = False
    text: Path | None = None
    rounds: int = ROUNDS
    new_tokens: int = cases.NEW_TOKENS
    command: str = "slmx bench"
    trust: bool = False
