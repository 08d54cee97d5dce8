"""Prints a report as terminal tables, Markdown, CSV and JSON lines. `Report.to_json` gives the whole report."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.report import claims
from benchmarks.report.fields import (
    FIELDS,
    Table,
    full_table,
    machine_table,
    main_table,
    printable,
    short_table,
    trouble_table,
)
from benchmarks.report.leaderboard import verdict
from benchmarks.report.record import Report

if TYPE_CHECKING:
    import rich.table

# Columns of text if the output is a file or a pipe.
PIPE_WIDTH = 160


def to_csv(report: Report) -> str:
    """Return every result, with any status, as a row of CSV. The header has the keys. Values are not rounded."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow([field.key for field in FIELDS])
    for result in report.results:
        writer.writerow([field.get(report, result) for field in FIELDS])
    return target.getvalue()


def to_jsonl(report: Report) -> str:
    """Return every result, with any status, as a line of JSON with all fields by key."""
    rows = [{field.key: field.get(report, result) for field in FIELDS} for result in report.results]
    return "".join(json.dumps(row) + "\n" for row in rows)


def _markdown_cell(text: str) -> str:
    for mark, escaped in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("`", "\\`"), ("*", "\\*"), ("\n", " ")):
        text = text.replace(mark, escaped)
    return text


def _markdown_table(table: Table) -> list[str]:
    if not table.rows:
        return []
    rows = [table.headings, *table.rows]
    lines = [f"| {' | '.join(map(_markdown_cell, row))} |" for row in rows]
    rule = "|".join("---" if words else "---:" for words in table.words)
    return [_markdown_cell(table.caption), "", lines[0], f"|{rule}|", *lines[1:], ""]


def _list(sentences: Sequence[str]) -> list[str]:
    return [*(f"- {_markdown_cell(sentence)}" for sentence in sentences), ""] if sentences else []


def _part(heading: str, *blocks: list[str]) -> list[str]:
    lines = [line for block in blocks for line in block]
    return [f"## {heading}", "", *lines] if lines else []


def to_markdown(report: Report, charts: Sequence[tuple[str, str]] = ()) -> str:
    """Return the report in Markdown, the most important part first.

    `charts` are the titles and the file names of the pictures in the same folder.
    """
    pictures = [f"![{title}]({file})\n" for title, file in charts]
    lines = [
        "# slmx benchmark",
        "",
        *_part("Where another runtime is better", _list(verdict(report))),
        *_part("Warnings", _list(report.warnings)),
        *_part("Main figures", _markdown_table(main_table(report))),
        *_part(
            "Published figures",
            _markdown_table(claims.literature_table(report)),
            _list(claims.notes(report)),
        ),
        *_part("Charts", pictures),
        *_part("All cases", _markdown_table(full_table(report))),
        *_part("Failed and skipped", _markdown_table(trouble_table(report))),
        *_part("Machine", _markdown_table(machine_table(report))),
        "The JSON file of this report has every raw sample.",
    ]
    return "\n".join(lines) + "\n"


def _rich_table(table: Table) -> rich.table.Table:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=box.SIMPLE_HEAD, title=Text(table.caption), title_justify="left", pad_edge=False)
    for heading, words in zip(table.headings, table.words, strict=True):
        drawn.add_column(Text(heading), justify="left" if words else "right", overflow="fold")
    for row in table.rows:
        drawn.add_row(*(Text(printable(cell)) for cell in row))
    return drawn


def print_report(report: Report) -> None:
    """Print to stdout where another runtime is better, the warnings, the main figures, the cases and the failures."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH)
    for sentence in verdict(report):
        console.print(printable(sentence), markup=False, soft_wrap=True)
    for warning in report.warnings:
        console.print(printable(f"warning: {warning}"), markup=False, soft_wrap=True, style="yellow")
    main, cases = main_table(report), short_table(report)
    more = [cases] if len(cases.rows) > len(main.rows) else []
    for table in (main, *more, trouble_table(report)):
        if table.rows:
            console.print(_rich_table(table))
