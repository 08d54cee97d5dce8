"""Tables of figures with their intervals. Markdown, the terminal and the page print the same tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.report.fields import printable

UNKNOWN = "-"
SIGNS = ("+", UNKNOWN)


@dataclass(frozen=True)
class Table:
    """A table of readable text.

    Attributes:
        heading: What it shows.
        note: How to read it.
        columns: A heading for each column.
        rows: Rows with a cell for each column, at least one row.
        blind: The numbers of the rows whose figures are blind to the control that is made for them.
        keys: The number of columns that together name a row.
    """

    heading: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    blind: frozenset[int] = frozenset()
    keys: int = 1

    @property
    def words(self) -> tuple[bool, ...]:
        """For each column, whether it holds words: it names the row, or no cell begins with a digit or a sign."""
        return tuple(
            not column or not any(row[column][:1].isdigit() or row[column][:1] in SIGNS for row in self.rows)
            for column in range(len(self.columns))
        )


def table(
    heading: str,
    note: str,
    columns: Iterable[str],
    rows: Iterable[Iterable[str]],
    blind: Iterable[int] = (),
    keys: int = 1,
) -> list[Table]:
    """Returns a table in a list; an empty list if there are no rows."""
    cells = tuple(tuple(row) for row in rows)
    return [Table(heading, note, tuple(columns), cells, frozenset(blind), keys)] if cells else []


def to_markdown(tables: Sequence[Table]) -> str:
    """Returns tables in Markdown, each after its heading and its note."""
    return "\n\n".join(part for one in tables for part in _parts(one))


def _parts(one: Table) -> list[str]:
    lines = [_line(one.columns), "|" + "---|" * len(one.columns), *map(_line, one.rows)]
    return [f"## {one.heading}", *[one.note] * bool(one.note), "\n".join(lines)]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(printable(" ".join(cell.split())).replace("|", "\\|") for cell in cells) + " |"


def interval(estimate: Mapping[str, Any] | None, form: str = ".4f", factor: float = 1.0) -> str:
    """Returns a figure with the half width of its interval, such as `0.7446 ± 0.0120`."""
    if estimate is None or estimate.get("value") is None:
        return UNKNOWN
    value = factor * estimate["value"]
    if estimate.get("low") is None:
        return format(value, form)
    return f"{value:{form}} ± {factor * (estimate['high'] - estimate['low']) / 2:{form}}"


def form_of_difference(*percents: float) -> str:
    """Returns the form of a difference in percent, in which not all its figures are shown as zero unless they are.

    Args:
        percents: The difference and the ends or the half width of its interval.

    Returns:
        Two decimals, or one digit and an exponent if two decimals show 0.00 for all.
    """
    largest = max(map(abs, percents))
    return ".2f" if largest >= 0.005 or not largest else ".0e"


def number(value: float | None, form: str) -> str:
    """Returns a number in a form of Python; `-` if it is unknown."""
    return UNKNOWN if value is None else format(value, form)


def percent(estimate: Mapping[str, Any] | None) -> str:
    """Returns a share in percent with its interval, such as `89.6 % (88.1 to 90.9)`; `-` if it is unknown.

    The interval of a share is not symmetric. It is cut to 0 to 100 %.
    """
    if estimate is None or estimate.get("value") is None:
        return UNKNOWN
    value = f"{100 * estimate['value']:.1f} %"
    if estimate.get("low") is None:
        return value
    low, high = 100 * max(0.0, estimate["low"]), 100 * min(1.0, estimate["high"])
    return f"{value} ({low:.1f} to {high:.1f})"
