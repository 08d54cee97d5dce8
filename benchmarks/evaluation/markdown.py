"""Tables in Markdown, and figures with their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

UNKNOWN = "-"


def interval(estimate: Mapping[str, Any] | None, form: str = ".4f", factor: float = 1.0) -> str:
    """Returns a figure with the half width of its interval, such as `0.7446 ± 0.0120`."""
    if estimate is None or estimate.get("value") is None:
        return UNKNOWN
    value = factor * estimate["value"]
    if estimate.get("low") is None:
        return format(value, form)
    return f"{value:{form}} ± {factor * (estimate['high'] - estimate['low']) / 2:{form}}"


def table(heading: str, note: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Returns a heading, a note and a table; nothing if there are no rows."""
    rows = [list(row) for row in rows]
    if not rows:
        return []
    columns = list(columns)
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return [f"## {heading}", *[note] * bool(note), "\n".join(lines)]
