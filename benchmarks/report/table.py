"""Tables of readable text, which Markdown, the terminal and the pages show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

UNKNOWN = "-"
_SIGNS = ("+", UNKNOWN)


@dataclass(frozen=True)
class Table:
    """A table of readable text.

    Attributes:
        columns: A heading for each column.
        rows: Rows with a cell for each column.
        note: How to read it.
        heading: What it shows, if it has a heading of its own.
        words: For each column, whether it holds words. By default those columns do that name a row or have no cell that
            begins with a digit or a sign.
        best: The places (row, column) of the best figures.
        blind: The numbers of the rows whose figures are blind to the control that is made for them.
        keys: The number of columns that together name a row.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    heading: str = ""
    words: Sequence[bool] = ()
    best: frozenset[tuple[int, int]] = field(default=frozenset(), kw_only=True)
    blind: frozenset[int] = field(default=frozenset(), kw_only=True)
    keys: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        if not self.words:
            words = tuple(not column or not self._has_number(column) for column in range(len(self.columns)))
            object.__setattr__(self, "words", words)

    def _has_number(self, column: int) -> bool:
        return any(row[column][:1].isdigit() or row[column][:1] in _SIGNS for row in self.rows)


def table(
    heading: str,
    note: str,
    columns: Iterable[str],
    rows: Iterable[Iterable[str]],
    blind: Iterable[int] = (),
    keys: int = 1,
) -> list[Table]:
    """Returns a table with a heading in a list; an empty list if there are no rows."""
    cells = tuple(tuple(row) for row in rows)
    return [Table(tuple(columns), cells, note, heading, blind=frozenset(blind), keys=keys)] if cells else []
