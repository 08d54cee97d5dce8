"""Writes all files of a report into one folder, completely or not at all."""

from __future__ import annotations

from pathlib import Path

from benchmarks.report.charts import write_pictures
from benchmarks.report.html import to_html
from benchmarks.report.printers import to_csv, to_jsonl, to_markdown
from benchmarks.report.record import Report
from slm.storage.atomic import atomic_folder
from slm.storage.listing import Listing, write_listing

REPORT_LISTING = Listing("files.json", "files")


def write_reports(report: Report, folder: Path) -> None:
    """Writes report.json, .jsonl, .csv, .md and .html, and two SVG files of each chart that has data.

    A report that is there is replaced.

    Raises:
        SlmxError: The folder holds other files than a report, or it cannot be written.
    """
    with atomic_folder(folder, REPORT_LISTING, replace=True) as work:
        pictures = write_pictures(report, work)
        texts = {
            "report.json": report.to_json(),
            "report.jsonl": to_jsonl(report),
            "report.csv": to_csv(report),
            "report.md": to_markdown(report, pictures),
            "report.html": to_html(report),
        }
        for name, text in texts.items():
            (work / name).write_text(text, "utf-8", newline="\n")
        write_listing(work, REPORT_LISTING)
