"""Runs of `slmx bench` that take seconds, how they are stopped, and their results."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.report.record import Report, Result
from benchmarks.run.bench import Bench
from benchmarks.run.settings import BenchSettings

ONE_RUNNER = ("--threads", "1", "--rounds", "5", "--peers", "none", "--variants", "int8")


def brief(out: Path, bundle: Path, *variants: str) -> BenchSettings:
    """Two rounds of few tokens on one thread."""
    return BenchSettings(
        out, (bundle,), variants=variants, threads="1", peers=("none",), rounds=2, new_tokens=4, command="slmx bench"
    )


def by_case(report: Report) -> dict[tuple[str, int, int], Result]:
    return {(result.case.runner, result.case.depth, result.case.batch): result for result in report.results}


def interrupt_after(turns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raises KeyboardInterrupt after this many turns of workers."""
    step, count = Bench._step, 0

    def counted(self: Bench, *given: object) -> None:
        nonlocal count
        count += 1
        if count == turns:
            raise KeyboardInterrupt
        step(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Bench, "_step", counted)
