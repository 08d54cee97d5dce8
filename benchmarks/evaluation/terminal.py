"""Prints tables on a terminal: aligned, and divided if they are wider than the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.evaluation.markdown import Table
from benchmarks.report.fields import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

GAP = 2  # spaces between two columns


def print_tables(tables: Sequence[Table], console: Console) -> None:
    """Prints tables.

    Args:
        tables: The tables.
        console: The terminal. Columns that have no room are printed below, after the names of the rows again.
    """
    for number, one in enumerate(tables):
        console.print("\n" * bool(number) + printable(one.heading), style="bold", markup=False, highlight=False)
        if one.note:
            console.print(printable(one.note), style="dim", markup=False, highlight=False)
        for columns in divided(one, console.width):
            console.print(_drawn(one, columns, console.width))


def divided(one: Table, width: int) -> list[list[int]]:
    """Divides the columns of a table into groups that fit a terminal.

    Args:
        one: The table.
        width: The characters of a line.

    Returns:
        The numbers of the columns of each group. Each begins with the columns that name a row and has one other at
        least.
    """
    names, widths = list(range(one.keys)), [_width(one, column, width) for column in range(len(one.columns))]
    left = width - sum(widths[: one.keys]) - GAP * (one.keys - 1)
    groups, room = [names], left
    for column in range(one.keys, len(widths)):
        if len(groups[-1]) > one.keys and widths[column] + GAP > room:
            groups.append(names)
            room = left
        groups[-1] = [*groups[-1], column]
        room -= widths[column] + GAP
    return groups


def _width(one: Table, column: int, width: int) -> int:
    """Returns the width of a column in which no cell and no word of the heading is cut. The first may be folded."""
    words = one.columns[column].split() or [""]
    needed = max(len(printable(text)) for text in (*words, *(row[column] for row in one.rows)))
    return needed if column else min(needed, width // 2)


def _drawn(one: Table, columns: Sequence[int], width: int) -> RichTable:
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for column in columns:
        drawn.add_column(
            Text(printable(one.columns[column])),
            justify="left" if one.words[column] else "right",
            width=_width(one, column, width),
            overflow="fold",
            vertical="bottom",
        )
    for number, row in enumerate(one.rows):
        style = "yellow" if number in one.blind else ""
        drawn.add_row(*(Text(printable(row[column])) for column in columns), style=style)
    return drawn
