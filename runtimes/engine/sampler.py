"""Chooses the next id from logits.

The order is fixed: the rules about the text so far (penalties.py), temperature, top-k, top-p, min-p, draw. It is the
order of Hugging Face transformers' logits processors. Top-p uses the probabilities that top-k kept, divided by their
sum. Min-p compares with the most likely id.
"""

from __future__ import annotations

import random
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from math import exp, inf, isfinite, log
from operator import neg
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from runtimes.engine.arrays import FloatArray, IndexArray
from runtimes.engine.penalties import Penalties
from runtimes.types import SamplingParams

if TYPE_CHECKING:
    from runtimes.engine.banned_words import BannedWordsRule

# The k largest logits are found with the maxima of this many groups, or of 2 k groups.
GROUPS = 500
FIRST_LOOK = 64
# The first look takes all ids above a bound. It is so low that k ids below it have together less than this share of the
# probability of the most likely id. Above the highest temperature, too many ids would be above the bound. Below the
# lowest, logits that are divided by it could be too large for float32.
FAR = 0.03
LOWEST, HIGHEST = 0.01, 1.2
ROUNDING = 1e-4  # a sum of probabilities changes by a smaller share, also in float32


class GroupMaxima:
    """Finds a bound that the k largest logits and few others reach. It uses one buffer for all tokens."""

    def __init__(self, k: int) -> None:
        self._groups = max(GROUPS, 2 * k)
        self._place = self._groups - k
        self._maxima = np.empty(0, np.float32)

    def __call__(self, logits: FloatArray) -> float:
        """Returns the k-th largest of the group maxima. At least k logits reach it.

        It takes less time than a partition of all logits.

        Args:
            logits: float32 [vocab]. If they are too few for groups, the bound is below all of them.
        """
        rows = len(logits) // self._groups
        if rows < 2:
            return -inf
        maxima = self._maxima
        if not len(maxima):  # not in __init__, because k may be far larger than the vocabulary
            maxima = self._maxima = np.empty(self._groups, np.float32)
        np.maximum.reduce(logits[: rows * self._groups].reshape(rows, self._groups), axis=0, out=maxima)
        maxima.partition(self._place)
        return maxima.item(self._place)


def system_seed() -> int:
    """Returns 32 random bits from the system."""
    return random.SystemRandom().getrandbits(32)


@dataclass(slots=True)
class Kept:
    """The ids that top-k, top-p and min-p kept.

    Attributes:
        ids: Candidates in rising order.
        values: Their logits.
        ranked: Logits of the kept ids, the most likely first. Of equal logits, the lower id is first.
        masses: Cumulative probabilities of `ranked`, not divided by their sum.
        last: The last rank that may be drawn.
    """

    ids: IndexArray
    values: FloatArray
    ranked: list[float]
    masses: list[float]
    last: int

    def rank_at(self, share: float) -> int:
        """Returns the rank that a number from 0 to 1 draws."""
        return bisect_right(self.masses, share * self.masses[self.last], 0, self.last)

    def id_at(self, rank: int) -> int:
        """Returns the id with a rank."""
        value = self.ranked[rank]
        return int(self.ids[(self.values == value).nonzero()[0][rank - self.ranked.index(value)]])


class Sampler:
    """Chooses ids one after another. The same seed and the same logits give the same ids. Not thread-safe.

    Args:
        sampling: How to choose.
        prompt: Ids of the prompt. The repetition penalty and the n-gram rule also count them.
        end: Id or ids that end the text, which `min_tokens` forbids; None for no such id.
        banned: The rule of the banned words of `sampling`; None if there are none.
    """

    def __init__(
        self,
        sampling: SamplingParams,
        prompt: Iterable[int] = (),
        end: int | list[int] | None = None,
        banned: BannedWordsRule | None = None,
    ) -> None:
        self.sampling = sampling
        self._random = random.Random(sampling.seed).random
        self._penalties = Penalties(sampling.rules, prompt, end, banned) if sampling.rules.active else None
        self._group_maxima = GroupMaxima(sampling.top_k)
        self._reaches = np.empty(0, np.bool_)
        self._count = min(sampling.top_k, sys.maxsize) or FIRST_LOOK
        self._width = sampling.temperature * log(self._count / FAR)  # of the first look, below the highest logit
        self._first_look = LOWEST <= sampling.temperature <= HIGHEST and (sampling.top_k > 0 or sampling.top_p < 1.0)

    def __call__(self, logits: FloatArray) -> int:
        """Chooses the next id.

        Args:
            logits: float32 [vocab]; not changed.

        Raises:
            FloatingPointError: The logits are NaN or infinite.
            NoTokenLeftError: The rules forbid every id.
        """
        if self._penalties is not None:
            logits = self._penalties(logits)
        chosen = int(logits.argmax()) if self.sampling.temperature == 0.0 else self._draw(logits)
        if not isfinite(logits.item(chosen)):
            raise FloatingPointError
        if self._penalties is not None:
            self._penalties.chose(chosen)
        return chosen

    def _draw(self, logits: FloatArray) -> int:
        sampling, share = self.sampling, self._random()
        if not sampling.top_k and sampling.top_p == 1.0 and not sampling.min_p:
            cumulative = self._weights(logits).cumsum()
            return min(int(cumulative.searchsorted(share * cumulative[-1], side="right")), len(logits) - 1)
        if self._first_look and (near := self._near(logits, share)) is not None:
            return near
        kept = self._kept(logits)
        return kept.id_at(kept.rank_at(share))

    def _near(self, logits: FloatArray, share: float) -> int | None:
        """Draws from the ids near the most likely one, as from all that `_kept` keeps.

        The ids that are not near come after the others. They change only the mass that top-p takes its share of, and
        the last rank. Both have bounds, and the rank that is drawn rises with them. So it is the right one if both
        bounds give it.

        Args:
            logits: float32 [vocab].
            share: The number from 0 to 1 that draws.

        Returns:
            The id; None if the bounds give different ranks.
        """
        most_likely = int(logits.argmax())
        highest = logits.item(most_likely)
        bound = highest - self._width
        kept = self._ranked(logits, bound, self._count)
        if self.sampling.top_k:
            others = self._count - len(kept.ranked)
            least = kept.masses[-1]
            most = least + others * exp((bound - highest) / self.sampling.temperature)
        else:
            others = len(logits)
            weights = logits - np.float32(highest)
            weights *= 1 / self.sampling.temperature
            most = float(np.exp(weights, weights).sum())
            least = most * (1 - ROUNDING)
        most *= 1 + ROUNDING
        self._cut(kept, least)
        rank = kept.rank_at(share)
        if others and share * most >= kept.masses[rank]:
            kept.ranked.append(kept.ranked[-1])  # one rank for all others
            kept.masses.append(most)
            self._cut(kept, most)
            if kept.rank_at(share) != rank:
                return None
        return kept.id_at(rank) if rank else most_likely

    def _kept(self, logits: FloatArray) -> Kept:
        """Applies top-k, top-p and min-p. They keep a few dozen ids, for which lists are faster than arrays."""
        top_k, top_p = self.sampling.top_k, self.sampling.top_p
        if top_k:
            kept = self._ranked(logits, self._group_maxima(logits), top_k)
            mass = kept.masses[-1]
        elif top_p < 1.0:
            mass, look = float(self._weights(logits).sum()), FIRST_LOOK
            while True:
                kept = self._ranked(logits, GroupMaxima(look)(logits), look)
                if kept.masses[-1] >= top_p * mass or look >= len(logits):
                    break
                look *= 4
        else:
            return self._ranked(logits, self._least(logits.item(logits.argmax())), len(logits))
        self._cut(kept, mass)
        return kept

    def _cut(self, kept: Kept, mass: float) -> None:
        """Sets the last rank that top-p and min-p keep. Top-p takes its share of `mass`."""
        sampling, last = self.sampling, len(kept.ranked) - 1
        if sampling.top_p < 1.0:
            last = bisect_left(kept.masses, sampling.top_p * mass, 0, last)
        if sampling.min_p:
            least = self._least(kept.ranked[0])
            last = bisect_right(kept.ranked, -least, 0, last + 1, key=neg) - 1
        kept.last = last

    def _least(self, highest: float) -> float:
        """Returns the lowest logit that min-p keeps."""
        return highest + self.sampling.temperature * log(self.sampling.min_p)

    def _ranked(self, logits: FloatArray, bound: float, count: int) -> Kept:
        """Returns the `count` most likely of the ids whose logits reach a bound."""
        if len(self._reaches) != len(logits):
            self._reaches = np.empty(len(logits), np.bool_)  # a new array for each token would take twice the time
        ids = np.greater_equal(logits, bound, self._reaches).nonzero()[0]
        values = logits.take(ids)
        ordered = values.copy()
        ordered.sort()
        ranked: list[float] = ordered[: -count - 1 : -1].tolist()
        if not ranked or not isfinite(ranked[0]):  # a bound of NaN keeps nothing
            raise FloatingPointError
        highest, temperature = ranked[0], self.sampling.temperature
        masses = list(accumulate([exp((value - highest) / temperature) for value in ranked]))
        return Kept(ids, values, ranked, masses, len(ranked) - 1)

    def _weights(self, logits: FloatArray) -> npt.NDArray[np.float64]:
        highest = logits.max()
        if not isfinite(highest):
            raise FloatingPointError
        weights: npt.NDArray[np.float64] = np.exp((logits - highest).astype(np.float64) / self.sampling.temperature)
        return weights
