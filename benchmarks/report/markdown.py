"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report.table import Table
from slm.console.markdown import as_markdown


def table_lines(table: Table) -> list[str]:
    """Returns the lines of a table without its heading and its note: the headings of the columns, and its rows."""
    rule = "|".join("---" if words else "---:" for words in table.words)
    lines = [_line([as_markdown(column) for column in table.columns]), f"|{rule}|"]
    for row, cells in enumerate(table.rows):
        shown = [
            f"**{as_markdown(cell)}**" if (row, column) in table.best else as_markdown(cell)
            for column, cell in enumerate(cells)
        ]
        lines.append(_line(shown))
    return lines


def to_markdown(tables: Sequence[Table], level: int = 2) -> str:
    """Returns tables, each after its heading, of this level, and its note."""
    return "\n\n".join(part for one in tables for part in _parts(one, level))


def _parts(one: Table, level: int) -> list[str]:
    return [
        f"{'#' * level} {as_markdown(one.heading)}",
        *[as_markdown(one.note)] * bool(one.note),
        "\n".join(table_lines(one)),
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
