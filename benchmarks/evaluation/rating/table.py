"""The table of what people preferred."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.evaluation.figures import percent
from benchmarks.report.markdown import to_markdown
from benchmarks.report.table import UNKNOWN, table

COLUMNS = ("model", "against", "won", "lost", "no difference", "same text", "not answered", "share won")


def ratings_table(found: Mapping[str, Any]) -> str:
    """Returns the heading, what was answered, and the table."""
    rows = []
    for pair in found["pairs"]:
        cells = [str(pair[name]) for name in COLUMNS[:-1]]
        rows.append([*cells, percent(pair["share won"]), _told(pair["share won"])])
    agreement, side = found["agreement"], found["side A preferred"]
    kappa = UNKNOWN if agreement["value"] is None else f"{agreement['value']:.2f}"
    common = f"{agreement['questions']:,} questions that all raters answered"
    agreed = f" {agreement['measure']} is {kappa} on the {common}." if agreement["measure"] else ""
    note = (
        f"Raters: {found['raters']:,}. Answers: {found['answers']:,}.{agreed} A question is won by the ending that "
        "more raters preferred. The share is of the questions that were won or lost, with Wilson's 95 % interval. Of "
        f"the questions with a preferred side, {percent(side)} are A: far from 50 % means that the side mattered."
    )
    return to_markdown(table("People", note, (*COLUMNS, "95 %"), rows))


def _told(share: Mapping[str, Any]) -> str:
    if share["value"] is None:
        return UNKNOWN
    return "cannot be told from chance" if share["low"] <= 0.5 <= share["high"] else "differs"
