"""Log-probabilities of ids, from the logits of the model itself, before all sampling rules."""

from __future__ import annotations

import math

import numpy as np

from runtimes.engine.arrays import FloatArray

LEAST_LOGPROB = -9999.0  # JSON has no minus infinity; OpenAI's interface has this number for it


def log_total(logits: FloatArray) -> float:
    """Returns the natural logarithm of the sum of the exponentials of logits [vocab].

    The log-probability of an id is its logit minus this number.
    """
    highest = logits.max()
    return float(highest) + math.log(float(np.exp(logits - highest).sum(dtype=np.float64)))


def most_likely(logits: FloatArray, count: int, total: float) -> dict[int, float]:
    """Returns the most likely ids with their log-probabilities, the most likely first.

    Args:
        logits: float32 [vocab].
        count: The number of ids. If the vocabulary has fewer, all are returned.
        total: The result of `log_total`.
    """
    ids = np.argpartition(logits, -count)[-count:] if count < len(logits) else np.arange(len(logits))
    ids = ids[np.lexsort((ids, -logits[ids]))]
    return dict(zip(ids.tolist(), (logits[ids].astype(np.float64) - total).tolist(), strict=True))
