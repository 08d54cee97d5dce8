"""Settings of runs that take seconds."""

from __future__ import annotations

from pathlib import Path

from benchmarks.run.bench import BenchSettings

ONE_RUNNER = ("--threads", "1", "--rounds", "5", "--peers", "none", "--variants", "int8")


def brief(out: Path, bundle: Path, *variants: str) -> BenchSettings:
    """Two rounds of few tokens on one thread."""
    return BenchSettings(
        out, (bundle,), variants=variants, threads="1", peers=("none",), rounds=2, new_tokens=4, command="slmx bench"
    )
