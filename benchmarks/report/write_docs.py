"""Writes a report as docs/benchmarks.md, with its charts and samples.

python -m benchmarks.report.write_docs REPORT.json --note "The models are ..."
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.program import run
from benchmarks.report.charts import write_pictures
from benchmarks.report.printers import to_markdown
from benchmarks.report.reader import read_report
from benchmarks.report.record import Report
from slm.storage.disk import write_file

CLOCK_DIGITS = 9  # decimal places of a second, because the clock counts nanoseconds


def write_docs(report: Report, docs: Path, note: str) -> None:
    """Writes benchmarks.md with a note below its sentences, benchmarks.json and the pictures.

    In benchmarks.json, the times of single tokens are rounded to the clock's nanosecond.
    """
    folder = docs / "benchmarks"
    folder.mkdir(exist_ok=True)
    pictures = {
        name: replace(picture, light=f"{folder.name}/{picture.light}", dark=f"{folder.name}/{picture.dark}")
        for name, picture in write_pictures(report, folder).items()
    }
    write_file(docs / "benchmarks.md", to_markdown(report, pictures, note).encode())
    rounded = [
        replace(result, token_seconds=[round(seconds, CLOCK_DIGITS) for seconds in result.token_seconds])
        for result in report.results
    ]
    write_file(docs / "benchmarks.json", replace(report, results=rounded).to_json().encode())


def main(
    report: Annotated[Path, typer.Argument(help="The report.json of a slmx bench run.")],
    docs: Annotated[Path, typer.Option(help="The folder of the documents.")] = Path("docs"),
    note: Annotated[str, typer.Option(help="A paragraph below the sentences, such as which models they are of.")] = "",
) -> None:
    """Write the documents of a report."""
    write_docs(read_report(report), docs, note)


if __name__ == "__main__":
    run(main)
