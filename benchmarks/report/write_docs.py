"""Writes a report as docs/benchmarks.md, with its charts and samples.

python -m benchmarks.report.write_docs REPORT.json
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.report.charts import write_pngs
from benchmarks.report.printers import to_markdown
from benchmarks.report.reader import read_report
from benchmarks.report.record import Report

CLOCK_DIGITS = 9  # decimal places of a second, because the clock counts nanoseconds


def write_docs(report: Report, docs: Path) -> None:
    """Write benchmarks.md, benchmarks.json and PNG charts. Times are rounded to the clock's nanosecond."""
    folder = docs / "benchmarks"
    folder.mkdir(exist_ok=True)
    charts = [(title, f"benchmarks/{file}") for title, file in write_pngs(report, folder)]
    (docs / "benchmarks.md").write_text(to_markdown(report, charts), "utf-8")
    rounded = [
        replace(result, token_seconds=[round(seconds, CLOCK_DIGITS) for seconds in result.token_seconds])
        for result in report.results
    ]
    (docs / "benchmarks.json").write_text(replace(report, results=rounded).to_json(), "utf-8")


def main(
    report: Annotated[Path, typer.Argument(help="The report.json of a slmx bench run.")],
    docs: Annotated[Path, typer.Option(help="The folder of the documents.")] = Path("docs"),
) -> None:
    """Write the documents of a report."""
    write_docs(read_report(report), docs)


if __name__ == "__main__":
    typer.run(main)
