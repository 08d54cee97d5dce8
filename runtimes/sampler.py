"""From logits to the next id.

The order is fixed: repetition penalty, temperature, top-k, top-p, draw. It is the order of Hugging Face
transformers' logits processors; top-p counts the probabilities that top-k left, summed up again to one.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from math import exp

import numpy as np
import numpy.typing as npt

from slm.errors import SlmxError

FloatArray = npt.NDArray[np.float32]
GROUPS = 500
FIRST_LOOK = 64


@dataclass(frozen=True)
class Sampling:
    """How to choose: temperature 0 is greedy; top_k 0, top_p 1 and repetition_penalty 1 are off.

    Raises SlmxError when a value is outside its range.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise SlmxError(f"temperature must be 0 (greedy) or more, not {self.temperature}")
        if self.top_k < 0:
            raise SlmxError(f"top-k must be 0 (off) or more, not {self.top_k}")
        if not 0.0 < self.top_p <= 1.0:
            raise SlmxError(f"top-p must lie above 0 and up to 1 (off), not {self.top_p}")
        if not 0.0 < self.repetition_penalty < float("inf"):
            raise SlmxError(f"repetition penalty must be above 0 (1 is off), not {self.repetition_penalty}")
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

    def __init__(self, sampling: Sampling, seen: Iterable[int] = ()) -> None:
        self.sampling = sampling
        self._random = random.Random(sampling.seed).random
        self._seen: dict[int, None] = dict.fromkeys(seen)

    def __call__(self, logits: FloatArray) -> int:
        """The next id for logits float32 [vocab], which are left as they are."""
        sampling = self.sampling
        penalized = sampling.repetition_penalty != 1.0
        if penalized and self._seen:
            logits = self._penalize(logits)
        chosen = int(logits.argmax()) if sampling.temperature == 0.0 else self._draw(logits)
        if penalized:
            self._seen[chosen] = None
        return chosen

    def _penalize(self, logits: FloatArray) -> FloatArray:
        """Positive logits of seen ids divided by the penalty, negative ones multiplied (Keskar et al. 2019)."""
        seen = np.fromiter(self._seen, np.intp, len(self._seen))
        values = logits[seen]
        penalty = np.float32(self.sampling.repetition_penalty)
        penalized = logits.copy()
        penalized[seen] = np.where(values > 0, values / penalty, values * penalty)
        return penalized

    def _draw(self, logits: FloatArray) -> int:
        if not self.sampling.top_k and self.sampling.top_p == 1.0:
            cumulative = self._weights(logits, logits.max()).cumsum()
            return min(int(cumulative.searchsorted(self._random() * cumulative[-1], side="right")), len(logits) - 1)
        ids, kept, masses = self._kept(logits)
        return int(ids[kept[min(bisect.bisect_right(masses, self._random() * masses[-1]), len(kept) - 1)]])

    def _kept(self, logits: FloatArray) -> tuple[npt.NDArray[np.intp], list[int], list[float]]:
        """What top-k and top-p keep: ids, places in them (likeliest first), cumulative unnormalized probabilities.

        A few dozen candidates are left here, for which lists are quicker than arrays.
        """
        top_k, top_p = self.sampling.top_k, self.sampling.top_p
        if top_k:
            ids, values = top_candidates(logits, top_k)
            places, masses = self._ranked(values.tolist(), top_k)
            mass = masses[-1]
        else:
            mass = float(self._weights(logits, logits.max()).sum())
            look = FIRST_LOOK
            while True:
                ids, values = top_candidates(logits, look)
                places, masses = self._ranked(values.tolist(), look)
                if masses[-1] >= top_p * mass or look >= len(logits):
                    break
                look *= 4
        if top_p < 1.0:
            count = bisect.bisect_left(masses, top_p * mass) + 1
            return ids, places[:count], masses[:count]
        return ids, places, masses

    def _ranked(self, values: list[float], count: int) -> tuple[list[int], list[float]]:
        """Places of the `count` largest values, largest first, and their cumulative unnormalized probabilities."""
        places = sorted(range(len(values)), key=values.__getitem__, reverse=True)[:count]
        highest, temperature = values[places[0]], self.sampling.temperature
        return places, list(accumulate([exp((values[place] - highest) / temperature) for place in places]))

    def _weights(self, logits: FloatArray, highest: np.float32) -> npt.NDArray[np.float64]:
        weights: npt.NDArray[np.float64] = np.exp((logits - highest).astype(np.float64) / self.sampling.temperature)
        return weights
