"""A report as a terminal table, Markdown, CSV and lines of JSON; its whole JSON is `Report.to_json`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.report import claims
from benchmarks.report.fields import (
    COLUMNS,
    Table,
    deciding_table,
    full_table,
    machine_table,
    short_table,
    trouble_table,
)
from benchmarks.report.leaderboard import verdict
from benchmarks.report.record import Report

if TYPE_CHECKING:
    import rich.table

# Columns of a terminal that is none: a file or a pipe.
PIPE_WIDTH = 160


def to_csv(report: Report) -> str:
    """Every result as a row, whatever its status, under the columns' keys; values are not rounded."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow([column.key for column in COLUMNS])
    for result in report.results:
        writer.writerow([column.get(report, result) for column in COLUMNS])
    return target.getvalue()


def to_jsonl(report: Report) -> str:
    """Every result as a line of JSON, whatever its status, with all columns by key."""
    rows = [{column.key: column.get(report, result) for column in COLUMNS} for result in report.results]
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
    """The report in Markdown, the answer first; `charts` are titles and the file names of pictures beside it."""
    pictures = [f"![{title}]({file})\n" for title, file in charts]
    lines = [
        "# slmx benchmark",
        "",
        *_part("Where a peer is ahead", _list(verdict(report))),
        *_part("Warnings", _list(report.warnings)),
        *_part("What decides", _markdown_table(deciding_table(report))),
        *_part(
            "Beside published figures",
            _markdown_table(claims.literature_table(report)),
            _list(claims.notes(report)),
        ),
        *_part("Charts", pictures),
        *_part("All cases", _markdown_table(full_table(report))),
        *_part("Failed and skipped", _markdown_table(trouble_table(report))),
        *_part("Machine", _markdown_table(machine_table(report))),
        "Every raw sample is in the JSON of this report.",
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
        drawn.add_row(*map(Text, row))
    return drawn


def print_report(report: Report) -> None:
    """Print where a peer is ahead, the warnings, the deciding table, the cases and what failed to stdout."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH)
    for sentence in verdict(report):
        console.print(sentence, markup=False, soft_wrap=True)
    for warning in report.warnings:
        console.print(f"warning: {warning}", markup=False, soft_wrap=True, style="yellow")
    decides, cases = deciding_table(report), short_table(report)
    more = [cases] if len(cases.rows) > len(decides.rows) else []
    for table in (decides, *more, trouble_table(report)):
        if table.rows:
            console.print(_rich_table(table))
