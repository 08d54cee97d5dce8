"""Prints a report as terminal tables, Markdown, CSV and JSON lines. `Report.to_json` gives the whole report."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from benchmarks.report.charts import SPEED, Picture
from benchmarks.report.fields import FIELDS, printable
from benchmarks.report.headline import Headline, caveats, headlines, opening, other_warnings
from benchmarks.report.parts import END, Part, facts, folded_parts
from benchmarks.report.record import FAILED, SKIPPED, Report
from benchmarks.report.tables import Table, main_table, trouble_table
from slm.console.counted import counted
from slm.console.notice import print_notice

if TYPE_CHECKING:
    import rich.table

# Columns of text if the output is a file or a pipe.
PIPE_WIDTH = 160
# Columns of a terminal between two columns of a table, and at both of its sides together.
GAP, MARGIN = 3, 2


def to_csv(report: Report) -> str:
    """Returns every result, with any status, as a row of CSV. The header has the keys. Values are not rounded."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow([field.key for field in FIELDS])
    for result in report.results:
        writer.writerow([field.get(report, result) for field in FIELDS])
    return target.getvalue()


def to_jsonl(report: Report) -> str:
    """Returns every result, with any status, as a line of JSON with all fields by key."""
    rows = [{field.key: field.get(report, result) for field in FIELDS} for result in report.results]
    return "".join(json.dumps(row) + "\n" for row in rows)


def _markdown_cell(text: str) -> str:
    for mark, escaped in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("`", "\\`"), ("*", "\\*"), ("\n", " ")):
        text = text.replace(mark, escaped)
    return text


def _markdown_table(table: Table) -> list[str]:
    if not table.rows:
        return []
    heads = [_markdown_cell(heading) for heading in table.headings]
    rule = "|".join("---" if words else "---:" for words in table.words)
    lines = [f"| {' | '.join(heads)} |", f"|{rule}|"]
    for row, cells in enumerate(table.rows):
        shown = [
            f"**{_markdown_cell(cell)}**" if (row, column) in table.best else _markdown_cell(cell)
            for column, cell in enumerate(cells)
        ]
        lines.append(f"| {' | '.join(shown)} |")
    return [*lines, "", *([_markdown_cell(table.caption), ""] if table.caption else [])]


def _list(sentences: Sequence[str]) -> list[str]:
    return [*(f"- {_markdown_cell(sentence)}" for sentence in sentences), ""] if sentences else []


def _sentence(headline: Headline) -> str:
    """Returns a sentence with its figure in bold."""
    start, end = headline.text.split(headline.figure, 1)
    return f"{_markdown_cell(start)}**{headline.figure}**{_markdown_cell(end)}"


def _picture(picture: Picture) -> list[str]:
    title = html.escape(picture.title)
    return [
        "<picture>",
        f'<source media="(prefers-color-scheme: dark)" srcset="{picture.dark}">',
        f'<img alt="{title}" src="{picture.light}">',
        "</picture>",
        "",
        _markdown_cell(picture.caption),
        "",
    ]


def _folded(part: Part) -> list[str]:
    tables = [line for table in part.tables for line in _markdown_table(table)]
    return [f"<details><summary>{html.escape(part.title)}</summary>", "", *tables, *_list(part.notes), "</details>", ""]


def to_markdown(report: Report, pictures: Mapping[str, Picture] | None = None, note: str = "") -> str:
    """Returns the report in Markdown: the sentence and its picture, the table, the charts, and the folded parts.

    Args:
        report: The report.
        pictures: The pictures by the names of their charts, with paths relative to the Markdown file.
        note: A paragraph after the sentences.
    """
    shown, sentences = pictures or {}, headlines(report)
    first = [_sentence(sentences[0]) if sentences else opening(report), ""]
    charts = [picture for name, picture in shown.items() if name != SPEED.name]
    lines = [
        "# slmx benchmark",
        "",
        *first,
        *[*(f"- {_sentence(sentence)}" for sentence in sentences[1:]), ""],
        *(f"> {_markdown_cell(caveat)}\n" for caveat in caveats(report)),
        _markdown_cell(f"Machine: {facts(report)}."),
        "",
        *([note, ""] if note else []),
        *(_picture(shown[SPEED.name]) if SPEED.name in shown else []),
        *(["## All runners", "", *_markdown_table(main)] if (main := main_table(report)).rows else []),
        *(["## Charts", ""] if charts else []),
        *(line for one in charts for line in (f"### {_markdown_cell(one.title)}", "", *_picture(one))),
        "## Details",
        "",
        *(line for part in folded_parts(report) for line in _folded(part)),
        END,
    ]
    return "\n".join(lines) + "\n"


def _least_widths(table: Table) -> list[int]:
    """Returns the least width of each column, in which no word and no number is cut. Words in cells may be cut."""
    widths = []
    for column, (heading, words) in enumerate(zip(table.headings, table.words, strict=True)):
        cells = [] if words and column else [len(printable(row[column])) for row in table.rows]
        widths.append(max([*map(len, heading.split()), *cells, 1]))
    return widths


def _widths(table: Table, width: int) -> list[int]:
    """Returns the widths of the first columns, as many as fit a terminal of this width, and two at least.

    The narrowest columns get the columns of the terminal that are left, until each has room for its text in one line.
    rich itself would make some narrower than their numbers.
    """
    least = _least_widths(table)
    fitting = sum(sum(least[: number + 1]) + GAP * number + MARGIN <= width for number in range(len(least)))
    found = least[: max(2, fitting)]
    whole = [max(len(printable(row[column])) for row in (table.headings, *table.rows)) for column in range(len(found))]
    for _ in range(sum(found) + GAP * (len(found) - 1) + MARGIN, width):
        growing = [column for column in range(len(found)) if found[column] < whole[column]]
        if growing:
            found[min(growing, key=lambda column: found[column])] += 1
    return found


def _rich_table(table: Table, width: int) -> tuple[rich.table.Table, int]:
    """Returns a table for a terminal of this width, and the number of its last columns that have no room."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False)
    widths = _widths(table, width)
    count = len(widths)
    for heading, words, room in zip(table.headings, table.words, widths, strict=False):
        justify: Literal["left", "right"] = "left" if words else "right"
        drawn.add_column(Text(heading), justify=justify, overflow="fold", width=room)
    for row, cells in enumerate(table.rows):
        styles = ["bold" if (row, column) in table.best else "" for column in range(count)]
        drawn.add_row(*(Text(printable(cell), style) for cell, style in zip(cells[:count], styles, strict=True)))
    return drawn, len(table.headings) - count


def print_report(report: Report) -> None:
    """Prints to stdout the sentences and what can change them, the table, the failed cases and the other warnings."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH)

    def line(text: str, style: str = "") -> None:
        print_notice(console, printable(text), style)

    line(opening(report), "bold")
    for sentence in headlines(report)[1:]:
        line(sentence.text)
    for caveat in caveats(report):
        line(f"warning: {caveat}", "yellow")
    main = main_table(report)
    if main.rows:
        table, left_out = _rich_table(main, console.width)
        console.print(table)
        if left_out:
            names = "; ".join(main.headings[-left_out:])
            line(f"{counted(left_out, 'more column')} in the report: {names}", "dim")
        line(main.caption, "dim")
    failed = trouble_table(report, FAILED)
    if failed.rows:
        console.print(_rich_table(failed, console.width)[0])
    skipped = sum(result.status == SKIPPED for result in report.results)
    if skipped:
        line(f"{counted(skipped, 'case')} skipped; the report says why", "dim")
    for warning in other_warnings(report):
        line(f"note: {warning}", "dim")
