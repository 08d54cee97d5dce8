"""Figures with their goals, and the table that shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """A measured value and its goal."""

    name: str
    value: str
    goal: str
    reached: bool | None = None


def at_most(name: str, value: float, goal: float | None, form: str) -> Figure:
    """Returns a figure that should be at most its goal."""
    if goal is None:
        return Figure(name, form.format(value), "")
    return Figure(name, form.format(value), f"<= {form.format(goal)}", value <= goal)


def at_least(name: str, value: float, goal: float | None, form: str) -> Figure:
    """Returns a figure that should be at least its goal."""
    if goal is None:
        return Figure(name, form.format(value), "")
    return Figure(name, form.format(value), f">= {form.format(goal)}", value >= goal)


def rise(estimate: Mapping[str, Any]) -> str:
    """Returns a relative rise with half of its interval, such as `+0.14% +-0.02%`. That of one story has none."""
    value = f"{estimate['value']:+.2%}"
    return value if estimate["low"] is None else f"{value} +-{(estimate['high'] - estimate['low']) / 2:.2%}"


def table(figures: Iterable[Figure]) -> str:
    """Returns a Markdown table of figures."""
    lines = ["| figure | measured | goal | |", "|---|---|---|---|"]
    for figure in figures:
        mark = {None: "", True: "reached", False: "NOT reached"}[figure.reached]
        lines.append(f"| {figure.name} | {figure.value} | {figure.goal} | {mark} |")
    return "\n".join(lines)
