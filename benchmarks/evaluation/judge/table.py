"""The table of the judge's scores, beside the scores that people gave elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.evaluation.figures import interval
from benchmarks.evaluation.judge.rubric import AXES
from benchmarks.report.table import UNKNOWN, Table, table

# The five rows that the literature prints for a small story model. It calls consistency coherence.
LITERATURE = {"grammar": 9.1, "creativity": 7.8, "consistency": 8.2, "engagement": 6.9, "relevance": 8.5}
PEOPLE, THEIR_STORIES = "people", 100
NOTE = (
    "Scores from 1 to 10, ± half of the 95 % interval over stories. Only columns of the same judge can be compared: "
    "the literature's scores are of another model and other stories, were given by people, and have no interval."
)
SILENT = " No answer of this judge had scores. judge.jsonl has the answers, and what is wrong with each."
BLIND = " This judge gave every ending the same scores, so its scores say nothing."


def judge_table(results: Mapping[str, Any]) -> list[Table]:
    """Returns the table; nothing if no model was judged."""
    judged = {name: suites["judge"] for name, suites in results.items() if "judge" in suites}
    if not judged:
        return []
    rows = [["scored by", *(found["scored by"] for found in judged.values()), PEOPLE]]
    for axis in AXES:
        theirs = f"{LITERATURE[axis]}" if axis in LITERATURE else UNKNOWN
        rows.append([axis, *(interval(found[axis], ".2f") for found in judged.values()), theirs])
    rows.append(["stories", *(str(found["stories"]) for found in judged.values()), str(THEIR_STORIES)])
    rows.append(["of these without scores", *(str(found["no scores"]) for found in judged.values()), UNKNOWN])
    silent = all(found["no scores"] == found["stories"] for found in judged.values())
    note = NOTE + (SILENT if silent else BLIND * _is_blind(judged.values()))
    return table("Judge", note, ("axis", *judged, "literature"), rows)


def _is_blind(judged: Iterable[Mapping[str, Any]]) -> bool:
    """Returns whether each axis has one and the same score for all endings of all models."""
    found = [[(each[axis]["value"], each[axis]["error"]) for axis in AXES] for each in judged]
    return all(each == found[0] for each in found) and all(error == 0 for _, error in found[0])
