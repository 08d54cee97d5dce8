"""Prints tables on a terminal: aligned, and divided if they are wider than the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.report.fields import printable
from benchmarks.report.table import Table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

GAP = 2  # spaces between two columns


def print_tables(tables: Sequence[Table], console: Console) -> None:
    """Prints tables, each after its heading and its note.

    Args:
        tables: The tables.
        console: The terminal.
    """
    for number, one in enumerate(tables):
        console.print("\n" * bool(number) + printable(one.heading), style="bold", markup=False, highlight=False)
        if one.note:
            console.print(printable(one.note), style="dim", markup=False, highlight=False)
        print_table(one, console)


def print_table(one: Table, console: Console) -> None:
    """Prints a table without its heading and its note.

    Args:
        one: The table.
        console: The terminal. Columns that have no room are printed below, after the names of the rows again.
    """
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
    names, widths = list(range(one.keys)), _least_widths(one, width)
    left = width - sum(widths[: one.keys]) - GAP * (one.keys - 1)
    groups, room = [names], left
    for column in range(one.keys, len(widths)):
        if len(groups[-1]) > one.keys and widths[column] + GAP > room:
            groups.append(names)
            room = left
        groups[-1] = [*groups[-1], column]
        room -= widths[column] + GAP
    return groups


def _least_widths(one: Table, width: int) -> list[int]:
    """Returns the least width of each column. Text that is longer than half of the terminal is folded there."""
    found = []
    for column, heading in enumerate(one.columns):
        words = [printable(word) for word in heading.split() or [""]]
        needed = max(map(len, (*words, *(printable(row[column]) for row in one.rows))))
        found.append(min(needed, max(width // 2, *map(len, words))) if one.words[column] else needed)
    return found


def _widths(one: Table, columns: Sequence[int], width: int) -> list[int]:
    """Returns the widths of a group of columns. The narrowest get what is left, until no text of theirs is folded."""
    least = _least_widths(one, width)
    found = [least[column] for column in columns]
    whole = [max(len(printable(row[column])) for row in (one.columns, *one.rows)) for column in columns]
    for _ in range(sum(found) + GAP * (len(found) - 1), width):
        growing = [place for place in range(len(found)) if found[place] < whole[place]]
        if growing:
            found[min(growing, key=lambda place: found[place])] += 1
    return found


def _drawn(one: Table, columns: Sequence[int], width: int) -> RichTable:
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for column, room in zip(columns, _widths(one, columns, width), strict=True):
        drawn.add_column(
            Text(printable(one.columns[column])),
            justify="left" if one.words[column] else "right",
            width=room,
            overflow="fold",
            vertical="bottom",
        )
    for number, row in enumerate(one.rows):
        styles = ["bold" if (number, column) in one.best else "" for column in columns]
        cells = (Text(printable(row[column]), style) for column, style in zip(columns, styles, strict=True))
        drawn.add_row(*cells, style="yellow" if number in one.blind else "")
    return drawn
