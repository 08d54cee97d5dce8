"""How far raters agree beyond chance."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence


def cohen(one: Sequence[Hashable], other: Sequence[Hashable]) -> float:
    """Returns Cohen's kappa of two raters.

    Source: Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological Measurement 20 (1960),
    37-46.

    Args:
        one: The answers of a rater.
        other: The answers of another rater to the same questions.

    Returns:
        1 if they always agree, 0 if they agree as often as by chance. NaN if there are no answers, or if both gave one
        and the same answer only.
    """
    count = len(one)
    if not count:
        return math.nan
    agreed = sum(mine == theirs for mine, theirs in zip(one, other, strict=True)) / count
    chance = sum(one.count(answer) * other.count(answer) for answer in set(one)) / count**2
    return math.nan if chance == 1 else (agreed - chance) / (1 - chance)


def fleiss(counts: Sequence[Sequence[int]]) -> float:
    """Returns Fleiss' kappa of three or more raters.

    Source: Fleiss, "Measuring nominal scale agreement among many raters", Psychological Bulletin 76 (1971), 378-382.

    Args:
        counts: How many raters gave each answer, for each question [questions][answers]. All rows have the same sum.

    Returns:
        As `cohen`.
    """
    if not counts:
        return math.nan
    raters, questions = sum(counts[0]), len(counts)
    agreed = sum((sum(n * n for n in row) - raters) / (raters * (raters - 1)) for row in counts) / questions
    shares = [sum(column) / (raters * questions) for column in zip(*counts, strict=True)]
    chance = sum(share * share for share in shares)
    return math.nan if max(shares) == 1 else (agreed - chance) / (1 - chance)
