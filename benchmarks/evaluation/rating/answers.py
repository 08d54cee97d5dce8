"""The answers of raters: from the files that the page saves to figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.evaluation.intervals import share
from benchmarks.evaluation.rating.agreement import cohen, fleiss
from benchmarks.evaluation.rating.page import FORMAT
from benchmarks.evaluation.rating.questions import KEY, Key, Question
from slm.console.errors import SlmxError, UsageError
from slm.storage.json_reader import Fields, read_json
from slm.storage.read_errors import unreadable

MAX_BYTES = 2**22
A, SAME, B = ANSWERS = ("a", "same", "b")


@dataclass(frozen=True)
class Rater:
    """What one person answered.

    Attributes:
        path: The file.
        rater: The random name that the page gave to the person.
        answers: `a`, `b` or `same` for each question that was answered.
    """

    path: Path
    rater: str
    answers: dict[str, str]

    @classmethod
    def read(cls, path: Path, key: Key) -> Rater:
        """Reads a file that the page has saved.

        Raises:
            SlmxError: It cannot be read, is another file, or is of another sheet.
        """
        try:
            fields = Fields(read_json(path, MAX_BYTES))
            if fields.value("format") != FORMAT:
                raise ValueError(f"format is not {FORMAT!r}")
            sheet, rater, answers = fields.text("sheet"), fields.text("rater"), fields.object("answers")
            known = {question.id for question in key.questions}
            if sheet == key.sheet:
                return cls(path, rater, {question: _answer(answers, question, known) for question in answers})
        except OSError as error:
            raise unreadable(path, error) from None
        except ValueError as error:
            raise SlmxError(f"{path}: not a file that a rating sheet saves: {error}") from None
        raise SlmxError(
            f"{path}: it answers the sheet {sheet}, and {KEY} is of {key.sheet}; give the --out of that sheet"
        )


def read_raters(paths: Sequence[Path], key: Key) -> list[Rater]:
    """Reads the files of several raters.

    Raises:
        SlmxError: A file is not of this sheet, or all have no answers.
        UsageError: Two files are of the same rater.
    """
    raters: dict[str, Rater] = {}
    for path in paths:
        rater = Rater.read(path, key)
        if rater.rater in raters:
            raise UsageError(f"{path} and {raters[rater.rater].path} are of the same rater; leave the older one out")
        raters[rater.rater] = rater
    if not any(rater.answers for rater in raters.values()):
        raise SlmxError(f"{paths[0]}: no question is answered in it")
    return list(raters.values())


def measure(key: Key, raters: Sequence[Rater]) -> dict[str, Any]:
    """Returns the figures for JSON.

    A question counts once, also for its side: the ending that more raters preferred has won. So the questions are
    independent of each other, as Wilson's interval needs it, although several raters answered each.

    Args:
        key: The questions.
        raters: The answers, each of another rater.
    """
    given = [answer for rater in raters for answer in rater.answers.values()]
    sides = [margin for question in key.questions if (margin := _margin(question, raters, question.a))]
    return {
        "sheet": key.sheet,
        "raters": len(raters),
        "answers": len(given),
        "side A preferred": share(sum(margin > 0 for margin in sides), len(sides)).to_json(),
        "pairs": [_pair(key, raters, *pair, same) for pair, same in zip(key.pairs, key.same, strict=True)],
        "agreement": _agreement(key, raters),
    }


def _answer(answers: Fields, question: str, known: set[str]) -> str:
    if question not in known:
        raise ValueError(f"answers has {question[:40]!a}, which the sheet does not ask")
    answer = answers.text(question)
    if answer not in ANSWERS:
        raise ValueError(f"answers.{question} is not one of {', '.join(ANSWERS)}")
    return answer


def _pair(key: Key, raters: Sequence[Rater], one: str, other: str, same: int) -> dict[str, Any]:
    asked = [question for question in key.questions if {question.a, question.b} == {one, other}]
    margins = [margin for question in asked if (margin := _margin(question, raters, one)) is not None]
    won, lost = sum(margin > 0 for margin in margins), sum(margin < 0 for margin in margins)
    return {
        "model": one,
        "against": other,
        "won": won,
        "lost": lost,
        "no difference": len(margins) - won - lost,
        "same text": same,
        "not answered": len(asked) - len(margins),
        "share won": share(won, won + lost).to_json(),
    }


def _margin(question: Question, raters: Sequence[Rater], one: str) -> int | None:
    """Returns how many raters more preferred the ending of a model; None if nobody answered."""
    given = [rater.answers[question.id] for rater in raters if question.id in rater.answers]
    ours, theirs = (A, B) if question.a == one else (B, A)
    return given.count(ours) - given.count(theirs) if given else None


def _agreement(key: Key, raters: Sequence[Rater]) -> dict[str, Any]:
    """Returns kappa over the questions that all raters answered, of the sides as they were chosen."""
    rows = [
        [rater.answers[question.id] for rater in raters]
        for question in key.questions
        if all(question.id in rater.answers for rater in raters)
    ]
    kappa, name = math.nan, None
    if len(raters) == 2:
        name, kappa = "Cohen's kappa", cohen([row[0] for row in rows], [row[1] for row in rows])
    elif len(raters) > 2:
        name, kappa = "Fleiss' kappa", fleiss([[row.count(answer) for answer in ANSWERS] for row in rows])
    return {"measure": name, "value": None if math.isnan(kappa) else kappa, "questions": len(rows)}
