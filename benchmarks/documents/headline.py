"""The sentence about speed in README.md, from docs/benchmarks.json. `cog -r README.md` puts it there."""

from __future__ import annotations

from pathlib import Path

from benchmarks.report.headline import opening
from benchmarks.report.reader import read_report

REPORT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.json"


def headline() -> str:
    """Returns the first sentence of the report in docs/, with the machine and the day."""
    report = read_report(REPORT)
    machine = report.machine
    where = f"{machine['cpu']} with {machine['cores']} cores"
    return f"{opening(report)} ({where}, onnxruntime {machine['onnxruntime']}, {report.created[:10]}.)"
