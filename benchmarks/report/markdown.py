"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report.fields import printable
from benchmarks.report.table import Table

_MARKS = (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("`", "\\`"), ("*", "\\*"))


def escaped(text: str) -> str:
    """Returns a text on one line, in which no character is a mark of Markdown or HTML."""
    text = printable(text)
    for mark, harmless in _MARKS:
        text = text.replace(mark, harmless)
    return text


def table_lines(table: Table) -> list[str]:
    """Returns the lines of a table without its heading and its note: the headings of the columns, and its rows."""
    rule = "|".join("---" if words else "---:" for words in table.words)
    lines = [_line([escaped(column) for column in table.columns]), f"|{rule}|"]
    for row, cells in enumerate(table.rows):
        shown = [
            f"**{escaped(cell)}**" if (row, column) in table.best else escaped(cell)
            for column, cell in enumerate(cells)
        ]
        lines.append(_line(shown))
    return lines


def to_markdown(tables: Sequence[Table], level: int = 2) -> str:
    """Returns tables, each after its heading, of this level, and its note."""
    return "\n\n".join(part for one in tables for part in _parts(one, level))


def _parts(one: Table, level: int) -> list[str]:
    return [f"{'#' * level} {escaped(one.heading)}", *[escaped(one.note)] * bool(one.note), "\n".join(table_lines(one))]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
