"""Finds known problems of a machine, and the fastest variant of a bundle on it.

The search for problems does not load onnxruntime, because that can crash.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from runtimes.bundle.variants import VARIANTS
from runtimes.engine.session import MOST_THREADS
from runtimes.system.machine import cpu_features, cpu_fields, cpu_quota, usable_cores
from slm.console.counted import counted
from slm.memory import memory_bytes

if TYPE_CHECKING:
    from runtimes.bundle.store import Bundle
    from runtimes.system.timing import Samples

BOARD = Path("/proc/device-tree/model")
STEPS = 64
TOO_NOISY = 0.25  # a spread of the fastest way in which the order of the ways is chance
NOISE = 0.05  # ways that are slower than the fastest by less than this share are as quick
FEW_STEPS = 4  # of a first round, which shows how many fit
ROUND_SECONDS = 1.0  # of all steps of a round, also on a slow machine
SECONDS = 3.0
BUSY = 0.5  # above this share of cores in use by other programs there is a warning


@dataclass(frozen=True)
class Findings:
    """The facts about a machine that decide which problems it has."""

    machine: str
    bits: int
    board: str
    features: tuple[str, ...]
    versions: Mapping[str, str]
    cores: int
    load: float
    memory: int | None


def look() -> Findings:
    """Collects the facts about this machine."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in ("onnxruntime", "numpy", "tiktoken"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = ""
    try:
        board = BOARD.read_text("utf-8").strip("\0\n")
    except OSError:
        board = ""
    return Findings(
        machine=platform.machine(),
        bits=64 if sys.maxsize > 2**32 else 32,
        board=board,
        features=tuple(cpu_features(cpu_fields())),
        versions=versions,
        cores=usable_cores(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,
        memory=memory_bytes(),
    )


def fatal_problems(found: Findings) -> list[str]:
    """Returns one line for each known problem that stops onnxruntime from running, with its solution.

    github.com/microsoft/onnxruntime/issues/23957 is about onnxruntime 1.21.0 on a Raspberry Pi 4.
    """
    lines = []
    if found.bits == 32:
        lines.append("32-bit system: onnxruntime has no wheels for it; install a 64-bit one (Raspberry Pi OS 64-bit)")
    if "Raspberry Pi 4" in found.board and found.versions["onnxruntime"] == "1.21.0":
        lines.append('onnxruntime 1.21.0 crashes on a Pi 4 when it loads: pip install "onnxruntime>=1.22"')
    return lines


def slowdowns(found: Findings) -> list[str]:
    """Returns one line for each known problem that makes onnxruntime slow."""
    lines = []
    if found.machine in ("x86_64", "AMD64") and found.features and "avx2" not in found.features:
        lines.append("no AVX2: onnxruntime has its quicker kernels for processors that have it")
    if found.load > found.cores * BUSY:
        lines.append(
            f"other programs want {found.load:.1f} cores (load average) and there are {found.cores}: "
            "the speeds below are lower than on an idle machine"
        )
    if found.memory is not None and found.memory < 150 * 2**20:
        lines.append(f"{found.memory / 2**20:.0f} MiB of memory left: nano needs 75, larger models more")
    return lines


@dataclass(frozen=True)
class Way:
    """A way to run a bundle: a variant and a number of threads."""

    variant: str
    threads: int

    def __str__(self) -> str:
        return f"{self.variant}, {counted(self.threads, 'thread')}"


def thread_counts() -> list[int]:
    """Returns the numbers of threads to compare: 1, 2 and 4, as far as there are cores, or else all cores."""
    cores = min(MOST_THREADS, usable_cores())
    return sorted({1, min(2, cores), cores})


def measure_ways(bundle: Bundle) -> dict[Way, Samples]:
    """Measures the seconds per token of every variant that onnxruntime runs, with each number of threads.

    All take turns for a few seconds.

    Returns:
        The seconds per token, the fastest first.
    """
    from runtimes.engine.decode_time import decode_seconds
    from runtimes.engine.session import Session
    from runtimes.system.timing import PAUSE, Samples, alternate
    from runtimes.types import SamplingParams

    sessions: dict[str, Session] = {}
    ways = {f"{name} {threads}": Way(name, threads) for name in bundle.variants for threads in thread_counts()}
    for key, way in ways.items():
        model, where = bundle.model_bytes(way.variant), bundle.model_location(way.variant)
        sessions[key] = Session.open(model, bundle.config, way.threads, where)

    def sides(steps: int) -> dict[str, Callable[[], float]]:
        return {
            key: partial(decode_seconds, session, [0], SamplingParams(temperature=0), steps)
            for key, session in sessions.items()
        }

    most = min(STEPS, bundle.config.block_size - 1)
    few = min(FEW_STEPS, most)
    started = time.perf_counter()
    alternate(sides(few), rounds=1)
    work = max(1e-6, (time.perf_counter() - started) / 2 - PAUSE * len(sessions))
    steps = max(few, min(most, int(few * ROUND_SECONDS / work)))
    once = work * steps / few + PAUSE * len(sessions)
    taken = alternate(sides(steps), rounds=max(3, min(25, int(SECONDS / once))))
    measured = {ways[key]: Samples([value / steps for value in samples.values]) for key, samples in taken.items()}
    return dict(sorted(measured.items(), key=lambda item: item[1].median))


def loss_of(bundle: Bundle, variant: str) -> str:
    """Describes what a variant loses as it writes: its rise in bits per byte over the float model.

    Args:
        bundle: The bundle, whose manifest has the figures of the export.
        variant: The variant.

    Returns:
        The end of a line, empty if the export measured no loss, as for the float model.
    """
    variants = bundle.manifest.variants
    source = variants.get(variants[variant].of or "", variants[variant])  # mobile is int8 in another format
    quality = source.figures.quality
    if quality is None:
        return ""
    read = " in whole windows" if quality.decode is None and not VARIANTS[variant].is_float else ""
    rise = round(quality.ways[-1].bpb_increase, 4) + 0.0  # no -0.00%
    return f", bits per byte {rise:+.2%}{read}"


def choose(measured: Mapping[Way, Samples], usual: Way) -> tuple[Way, list[Way]]:
    """Chooses the way to keep of those that lose at most `MOST_LOSS`.

    Ways whose spreads overlap that of the fastest, or that are slower by less than `NOISE`, are equally quick. A spread
    that is wider than that of the fastest counts as that, because noise alone makes no way as quick. Of these it takes
    the default, or else the fewest threads, or else the fastest.

    Args:
        measured: The seconds per token of each way, the fastest first.
        usual: The default.

    Returns:
        The way, and the others that are equally quick.
    """
    allowed = [way for way in measured if VARIANTS[way.variant].may_be_default] or list(measured)
    fastest = measured[allowed[0]]
    slowest = fastest.median * max(1 + NOISE, 1 + fastest.spread)
    equal = [
        way for way in allowed if measured[way].median * (1 - min(measured[way].spread, fastest.spread)) <= slowest
    ]
    kept = min(equal, key=lambda way: (way != usual, way.threads))
    return kept, [way for way in equal if way != kept]


def limits() -> str:
    """Describes what stops this process from using the whole machine."""
    quota = cpu_quota()
    return f"a container's limit of {quota:g} processors" if quota is not None else "no container limit"
