"""From logits to the next id.

The order is fixed: the rules on what was written (penalties.py), temperature, top-k, top-p, min-p, draw. It is the
order of Hugging Face transformers' logits processors; top-p counts the probabilities that top-k left, summed up again
to one; min-p compares with the likeliest id.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from math import exp, isnan, log
from operator import neg

import numpy as np
import numpy.typing as npt

from runtimes.engine.penalties import FloatArray, LogitsRules, Penalties
from slm.errors import SlmxError

GROUPS = 500
FIRST_LOOK = 64
NO_RULES = LogitsRules()


@dataclass(frozen=True)
class SamplingParams:
    """How to choose: temperature 0 is greedy; top_k 0, top_p 1 and min_p 0 are off, and `rules` are by default.

    Raises SlmxError when a value is outside its range.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.0
    seed: int | None = None
    rules: LogitsRules = NO_RULES

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise SlmxError(f"temperature must be 0 (greedy) or more, not {self.temperature}")
        if self.top_k < 0:
            raise SlmxError(f"top-k must be 0 (off) or more, not {self.top_k}")
        if not 0.0 < self.top_p <= 1.0:
            raise SlmxError(f"top-p must lie above 0 and up to 1 (off), not {self.top_p}")
        if not 0.0 <= self.min_p <= 1.0:
            raise SlmxError(f"min-p must lie between 0 (off) and 1, not {self.min_p}")
        if self.seed is not None and self.seed < 0:
            raise SlmxError(f"seed must be 0 or more, not {self.seed}")


class Candidates:
    """Finds the few ids among which the k largest logits are; its buffer is used again for every token."""

    def __init__(self, k: int) -> None:
        self._groups = max(GROUPS, 2 * k)
        self._place = self._groups - k
        self._maxima = np.empty(self._groups, np.float32)

    def __call__(self, logits: FloatArray) -> npt.NDArray[np.intp]:
        """Ids in rising order that surely hold the k largest of logits [vocab]: those and a few more.

        Quicker than a partition of the whole: the k-th largest of many group maxima is a bound that at least k logits
        reach.
        """
        rows = len(logits) // self._groups
        if rows < 2:
            return np.arange(len(logits))
        maxima = self._maxima
        np.maximum.reduce(logits[: rows * self._groups].reshape(rows, self._groups), axis=0, out=maxima)
        maxima.partition(self._place)
        ids: npt.NDArray[np.intp] = (logits >= maxima[self._place]).nonzero()[0]
        return ids


def system_seed() -> int:
    """32 random bits from the system."""
    return random.SystemRandom().getrandbits(32)


@dataclass(slots=True)
class Kept:
    """Candidates `ids` with logits `values`; `ranked`, the likeliest first, with cumulative unnormalized `masses`.

    What may be drawn ends with rank `last`. Of equal logits the lower id ranks first.
    """

    ids: npt.NDArray[np.intp]
    values: list[float]
    ranked: list[float]
    masses: list[float]
    last: int

    def id_at(self, rank: int) -> int:
        """The id of that rank."""
        value = self.ranked[rank]
        place = self.values.index(value)
        while rank and self.ranked[rank - 1] == value:
            place = self.values.index(value, place + 1)
            rank -= 1
        return int(self.ids[place])


class Sampler:
    """Chooses ids one after another; the same seed and the same logits give the same ids."""

    def __init__(self, sampling: SamplingParams, prompt: Iterable[int] = (), end: int | None = None) -> None:
        self.sampling = sampling
        self._random = random.Random(sampling.seed).random
        self._penalties = Penalties(sampling.rules, prompt, end) if sampling.rules.active else None
        self._candidates = Candidates(sampling.top_k)

    def __call__(self, logits: FloatArray) -> int:
        """The next id for logits float32 [vocab], which are left as they are; FloatingPointError if they are NaN."""
        if self._penalties is not None:
            logits = self._penalties(logits)
        chosen = int(logits.argmax()) if self.sampling.temperature == 0.0 else self._draw(logits)
        if isnan(logits[chosen]):
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
        """What top-k, top-p and min-p keep. A few dozen ids are left here, for which lists are quicker than arrays."""
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
        """The logit below which min-p leaves an id out."""
        return highest + self.sampling.temperature * log(self.sampling.min_p)

    def _ranked(self, logits: FloatArray, ids: npt.NDArray[np.intp], count: int) -> Kept:
        """The `count` likeliest of the candidates."""
        values: list[float] = logits[ids].tolist()
        if not values:  # no logit is at least NaN
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
