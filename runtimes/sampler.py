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

import numpy as np
import numpy.typing as npt

from runtimes.penalties import FloatArray, Penalties, Rules
from slm.errors import SlmxError

GROUPS = 500
FIRST_LOOK = 64
NO_RULES = Rules()


@dataclass(frozen=True)
class Sampling:
    """How to choose: temperature 0 is greedy; top_k 0, top_p 1 and min_p 0 are off, and `rules` are by default.

    Raises SlmxError when a value is outside its range.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.0
    seed: int | None = None
    rules: Rules = NO_RULES

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


def top_candidates(logits: FloatArray, k: int) -> tuple[npt.NDArray[np.intp], FloatArray]:
    """Ids in rising order, and their logits, that surely hold the k largest: those and a few more.

    Quicker than a partition of the whole: the k-th largest of many group maxima is a bound that at least
    k logits reach.
    """
    size = len(logits)
    groups = max(GROUPS, 2 * k)
    rows = size // groups
    if rows < 2:
        return np.arange(size), logits
    maxima = logits[: rows * groups].reshape(rows, groups).max(axis=0)
    maxima.partition(groups - k)
    ids = (logits >= maxima[groups - k]).nonzero()[0]
    return ids, logits[ids]


class Sampler:
    """Chooses ids one after another; the same seed and the same logits give the same ids."""

    def __init__(self, sampling: Sampling, prompt: Iterable[int] = (), end: int | None = None) -> None:
        self.sampling = sampling
        self._random = random.Random(sampling.seed).random
        self._penalties = Penalties(sampling.rules, prompt, end) if sampling.rules.active else None

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
            cumulative = self._weights(logits, logits.max()).cumsum()
            return min(int(cumulative.searchsorted(self._random() * cumulative[-1], side="right")), len(logits) - 1)
        ids, kept, masses = self._kept(logits)
        return int(ids[kept[min(bisect.bisect_right(masses, self._random() * masses[-1]), len(kept) - 1)]])

    def _kept(self, logits: FloatArray) -> tuple[npt.NDArray[np.intp], list[int], list[float]]:
        """What top-k, top-p and min-p keep: ids, places in them (likeliest first), cumulative unnormalized masses.

        A few dozen candidates are left here, for which lists are quicker than arrays.
        """
        top_k, top_p, min_p = self.sampling.top_k, self.sampling.top_p, self.sampling.min_p
        if top_k:
            ids, values = top_candidates(logits, top_k)
            ranked = values.tolist()
            places, masses = self._ranked(ranked, top_k)
            mass = masses[-1]
        elif top_p < 1.0:
            mass = float(self._weights(logits, logits.max()).sum())
            look = FIRST_LOOK
            while True:
                ids, values = top_candidates(logits, look)
                ranked = values.tolist()
                places, masses = self._ranked(ranked, look)
                if masses[-1] >= top_p * mass or look >= len(logits):
                    break
                look *= 4
        else:
            ids = (logits >= self._least(float(logits.max()))).nonzero()[0]
            return ids, *self._ranked(logits[ids].tolist(), len(ids))
        count = len(places)
        if top_p < 1.0:
            count = bisect.bisect_left(masses, top_p * mass) + 1
        if min_p:
            least = self._least(ranked[places[0]])
            count = bisect.bisect_right(places, -least, hi=min(count, len(places)), key=lambda place: -ranked[place])
        return ids, places[:count], masses[:count]

    def _least(self, highest: float) -> float:
        """The logit below which min-p leaves an id out."""
        return highest + self.sampling.temperature * log(self.sampling.min_p)

    def _ranked(self, values: list[float], count: int) -> tuple[list[int], list[float]]:
        """Places of the `count` largest values, largest first, and their cumulative unnormalized probabilities."""
        if not values:  # no logit is at least NaN
            raise FloatingPointError
        places = sorted(range(len(values)), key=values.__getitem__, reverse=True)[:count]
        highest, temperature = values[places[0]], self.sampling.temperature
        return places, list(accumulate([exp((values[place] - highest) / temperature) for place in places]))

    def _weights(self, logits: FloatArray, highest: np.float32) -> npt.NDArray[np.float64]:
        weights: npt.NDArray[np.float64] = np.exp((logits - highest).astype(np.float64) / self.sampling.temperature)
        return weights
