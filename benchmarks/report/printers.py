"""Prints a report as terminal tables, Markdown, CSV and JSON lines. `Report.to_json` gives the whole report."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Mapping, Sequence

from benchmarks.report.charts import SPEED, Picture
from benchmarks.report.fields import FIELDS, printable
from benchmarks.report.headline import Headline, caveats, headlines, opening, other_warnings
from benchmarks.report.markdown import table_lines
from benchmarks.report.parts import END, Part, facts, folded_parts
from benchmarks.report.record import FAILED, SKIPPED, Report
from benchmarks.report.table import Table
from benchmarks.report.tables import BEST, main_table, trouble_table
from benchmarks.report.terminal import print_table
from slm.console.counted import counted
from slm.console.markdown import as_markdown
from slm.console.notice import print_notice

# Columns of text if the output is a file or a pipe.
PIPE_WIDTH = 160


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


def _markdown_table(table: Table) -> list[str]:
    return [*table_lines(table), "", *([as_markdown(table.note), ""] if table.note else [])] if table.rows else []


def _list(sentences: Sequence[str]) -> list[str]:
    return [*(f"- {as_markdown(sentence)}" for sentence in sentences), ""] if sentences else []


def _sentence(headline: Headline) -> str:
    """Returns a sentence with its figure in bold."""
    start, end = headline.text.split(headline.figure, 1)
    return f"{as_markdown(start)}**{headline.figure}**{as_markdown(end)}"


def _picture(picture: Picture) -> list[str]:
    title = html.escape(picture.title)
    return [
        "<picture>",
        f'<source media="(prefers-color-scheme: dark)" srcset="{picture.dark}">',
        f'<img alt="{title}" src="{picture.light}">',
        "</picture>",
        "",
        as_markdown(picture.caption),
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
        *(f"> {as_markdown(caveat)}\n" for caveat in caveats(report)),
        as_markdown(f"Machine: {facts(report)}."),
        "",
        *([note, ""] if note else []),
        *(_picture(shown[SPEED.name]) if SPEED.name in shown else []),
        *(["## All runners", "", *_markdown_table(main)] if (main := main_table(report)).rows else []),
        *(["## Charts", ""] if charts else []),
        *(line for one in charts for line in (f"### {as_markdown(one.title)}", "", *_picture(one))),
        "## Details",
        "",
        *(line for part in folded_parts(report) for line in _folded(part)),
        END,
    ]
    return "\n".join(lines) + "\n"


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
        line("")
        print_table(main, console)
        line("")
        line(main.note if console.is_terminal else main.note.replace(f" {BEST}", ""), "dim")
    failed = trouble_table(report, FAILED)
    if failed.rows:
        line("")
        print_table(failed, console)
    skipped = sum(result.status == SKIPPED for result in report.results)
    if skipped:
        line(f"{counted(skipped, 'case')} skipped; the report says why", "dim")
    for warning in other_warnings(report):
        line(f"note: {warning}", "dim")
