"""Chooses the next id from logits.

The order is fixed: the rules about the text so far (penalties.py), temperature, top-k, top-p, min-p, draw. It is the
order of Hugging Face transformers' logits processors. Top-p uses the probabilities that top-k kept, divided by their
sum. Min-p compares with the most likely id.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from math import exp, isfinite, log
from operator import neg
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from runtimes.engine.penalties import FloatArray, Penalties
from runtimes.types import SamplingParams

if TYPE_CHECKING:
    from runtimes.engine.banned_words import BannedWordsRule

# The k largest logits are found with the maxima of this many groups, or of 2 k groups.
GROUPS = 500
FIRST_LOOK = 64


class Candidates:
    """Finds a few ids that include the k largest logits. It uses one buffer for all tokens."""

    def __init__(self, k: int) -> None:
        self._groups = max(GROUPS, 2 * k)
        self._place = self._groups - k
        self._maxima = np.empty(0, np.float32)

    def __call__(self, logits: FloatArray) -> npt.NDArray[np.intp]:
        """Finds the candidates.

        At least k logits reach the k-th largest of the group maxima. Finding that bound takes less time than a
        partition of all logits.

        Args:
            logits: float32 [vocab].

        Returns:
            Ids in rising order: the k largest and a few more.
        """
        rows = len(logits) // self._groups
        if rows < 2:
            return np.arange(len(logits))
        maxima = self._maxima
        if not len(maxima):  # not in __init__, because k may be far larger than the vocabulary
            maxima = self._maxima = np.empty(self._groups, np.float32)
        np.maximum.reduce(logits[: rows * self._groups].reshape(rows, self._groups), axis=0, out=maxima)
        maxima.partition(self._place)
        ids: npt.NDArray[np.intp] = (logits >= maxima[self._place]).nonzero()[0]
        return ids


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

    ids: npt.NDArray[np.intp]
    values: list[float]
    ranked: list[float]
    masses: list[float]
    last: int

    def id_at(self, rank: int) -> int:
        """Returns the id with a rank."""
        value = self.ranked[rank]
        place = self.values.index(value)
        while rank and self.ranked[rank - 1] == value:
            place = self.values.index(value, place + 1)
            rank -= 1
        return int(self.ids[place])


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
        self._candidates = Candidates(sampling.top_k)

    def __call__(self, logits: FloatArray) -> int:
        """Chooses the next id.

        Args:
            logits: float32 [vocab]; not changed.

        Raises:
            FloatingPointError: The logits are NaN or infinite.
            NoTokenLeftError: The rules forbid every id.
            SlmxError: A bias is for an id that the vocabulary does not have.
        """
        if self._penalties is not None:
            logits = self._penalties(logits)
        chosen = int(logits.argmax()) if self.sampling.temperature == 0.0 else self._draw(logits)
        if not isfinite(logits[chosen]):
            raise FloatingPointError
        if self._penalties is not None:
            self._penalties.chose(chosen)
        return chosen

    def _draw(self, logits: FloatArray) -> int:
        sampling = self.sampling
        if not sampling.top_k and sampling.top_p == 1.0 and not sampling.min_p:
            cumulative = self._weights(logits).cumsum()
            return min(int(cumulative.searchsorted(self._random() * cumulative[-1], side="right")), len(logits) - 1)
        kept = self._kept(logits)
        return kept.id_at(bisect.bisect_right(kept.masses, self._random() * kept.masses[kept.last], 0, kept.last))

    def _kept(self, logits: FloatArray) -> Kept:
        """Applies top-k, top-p and min-p. They keep a few dozen ids, for which lists are faster than arrays."""
        top_k, top_p, min_p = self.sampling.top_k, self.sampling.top_p, self.sampling.min_p
        if top_k:
            kept = self._ranked(logits, self._candidates(logits), top_k)
            mass = kept.masses[-1]
        elif top_p < 1.0:
            mass, look = float(self._weights(logits).sum()), FIRST_LOOK
            while True:
                kept = self._ranked(logits, Candidates(look)(logits), look)
                if kept.masses[-1] >= top_p * mass or look >= len(logits):
                    break
                look *= 4
        else:
            return self._ranked(logits, (logits >= self._least(float(logits.max()))).nonzero()[0], len(logits))
        if top_p < 1.0:
            kept.last = bisect.bisect_left(kept.masses, top_p * mass, 0, kept.last)
        if min_p:
            least = self._least(kept.ranked[0])
            kept.last = bisect.bisect_right(kept.ranked, -least, 0, kept.last + 1, key=neg) - 1
        return kept

    def _least(self, highest: float) -> float:
        """Returns the lowest logit that min-p keeps."""
        return highest + self.sampling.temperature * log(self.sampling.min_p)

    def _ranked(self, logits: FloatArray, ids: npt.NDArray[np.intp], count: int) -> Kept:
        """Returns the `count` most likely candidates."""
        values: list[float] = logits[ids].tolist()
        if not values:  # a bound of NaN keeps nothing
            raise FloatingPointError
        ranked = sorted(values, reverse=True)
        del ranked[count:]
        highest, temperature = ranked[0], self.sampling.temperature
        masses = list(accumulate(map(exp, [(value - highest) / temperature for value in ranked])))
        return Kept(ids, values, ranked, masses, len(ranked) - 1)

    def _weights(self, logits: FloatArray) -> npt.NDArray[np.float64]:
        weights: npt.NDArray[np.float64] = np.exp(
            (logits - logits.max()).astype(np.float64) / self.sampling.temperature
        )
        return weights
