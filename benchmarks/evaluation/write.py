"""Writes an evaluation for people: Markdown and a page."""

from __future__ import annotations

from pathlib import Path

from benchmarks.evaluation.page.headline import headline
from benchmarks.evaluation.page.html import facts, to_html
from benchmarks.evaluation.run import MARKDOWN, PAGE, Evaluation
from benchmarks.evaluation.tables import tables
from benchmarks.report.fields import printable
from benchmarks.report.markdown import to_markdown
from benchmarks.report.record import Report
from slm.storage.disk import write_file


def write_reports(found: Evaluation, out: Path, command: str, bench: Report | None) -> None:
    """Writes the Markdown and the page of an evaluation.

    Args:
        found: The evaluation.
        out: Its folder.
        command: The command that made it.
        bench: A report of `slmx bench` with the speeds of the models.
    """
    title = printable(found.settings["model"])
    start = f"# {title}\n\n{headline(found).text}\n\n{'; '.join(facts(found))}\n\n    {command}"
    write_file(out / MARKDOWN, f"{start}\n\n{to_markdown(tables(found))}\n".encode("utf-8", "replace"))
    write_file(out / PAGE, f"{to_html(found, command, bench)}\n".encode("utf-8", "replace"))
