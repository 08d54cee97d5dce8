"""From logits to the next id.

The order is fixed: repetition penalty, temperature, top-k, top-p, draw. It is the order of Hugging Face
transformers' logits processors; top-p counts the probabilities that top-k left, summed up again to one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slm.errors import SlmxError

FloatArray = npt.NDArray[np.float32]
GROUPS = 250
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
    """Ids and logits of the k largest, largest first; of equal ones the lower id comes first.

    Exact, and quicker than a partition of the whole: the k-th largest of many group maxima is a bound
    that at least k logits reach, so only those need sorting.
    """
    size = len(logits)
    if k >= size:
        ids = np.argsort(-logits, kind="stable")
        return ids, logits[ids]
    groups = max(GROUPS, 2 * k)
    rows = size // groups
    if rows > 1:
        maxima = logits[: rows * groups].reshape(rows, groups).max(axis=0)
        maxima.partition(groups - k)
        reaching = (logits >= maxima[groups - k]).nonzero()[0]
    else:
        reaching = np.arange(size)
    values = logits[reaching]
    order = (-values).argsort(kind="stable")[:k]
    return reaching[order], values[order]


class Sampler:
    """Chooses ids one after another; the same seed and the same logits give the same ids."""

    def __init__(self, sampling: Sampling, seen: Iterable[int] = ()) -> None:
        self.sampling = sampling
        self._random = np.random.default_rng(sampling.seed).random
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
        ids, cumulative = self._kept(logits)
        target = self._random() * cumulative[-1]
        return int(ids[min(int(cumulative.searchsorted(target, side="right")), len(ids) - 1)])

    def _kept(self, logits: FloatArray) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        """Ids that top-k and top-p keep, likeliest first, and their cumulative unnormalized probabilities."""
        sampling = self.sampling
        if sampling.top_k:
            ids, values = top_candidates(logits, sampling.top_k)
            cumulative = self._weights(values, values[0]).cumsum()
            mass = cumulative[-1]
        elif sampling.top_p < 1.0:
            highest = logits.max()
            mass = self._weights(logits, highest).sum()
            look = FIRST_LOOK
            while True:
                ids, values = top_candidates(logits, look)
                cumulative = self._weights(values, highest).cumsum()
                if cumulative[-1] >= sampling.top_p * mass or look >= len(logits):
                    break
                look *= 4
        else:
            return np.arange(len(logits)), self._weights(logits, logits.max()).cumsum()
        if sampling.top_p < 1.0:
            kept = int(cumulative.searchsorted(sampling.top_p * mass)) + 1
            return ids[:kept], cumulative[:kept]
        return ids, cumulative

    def _weights(self, values: FloatArray, highest: np.float32) -> npt.NDArray[np.float64]:
        scaled: npt.NDArray[np.float64] = np.exp((values - highest) / self.sampling.temperature, dtype=np.float64)
        return scaled
