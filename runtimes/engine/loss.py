"""Measures how well a session predicts a text, in numpy. It is the only implementation outside training.

Loss means the negative log-likelihood in nats per token. `slm.metrics.bits_per_byte` converts a total of nats.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from runtimes.engine.arrays import FloatArray, IdArray

if TYPE_CHECKING:
    from runtimes.engine.session import Session


def log_softmax(logits: FloatArray) -> FloatArray:
    """Normalizes logits to log-probabilities.

    Args:
        logits: float32 [n, vocab].

    Returns:
        Log-probabilities float32 [n, vocab]; NaN in a row that holds NaN or positive infinity.
    """
    with np.errstate(invalid="ignore"):
        shifted = logits - logits.max(axis=-1, keepdims=True)
        normalized: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalized


def negative_log_likelihood(log_probabilities: FloatArray, targets: IdArray) -> float:
    """Sums the negative log-likelihood of target ids.

    Args:
        log_probabilities: float32 [n, vocab], from `log_softmax`.
        targets: int64 [n], the next ids of the text.

    Returns:
        The total over the n predictions in nats, summed in float64; NaN if one of them is NaN.
    """
    return -float(np.take_along_axis(log_probabilities, targets[:, None], axis=-1).sum(dtype=np.float64))


def read_windows(session: Session, windows: IdArray, token_by_token: bool) -> Iterator[FloatArray]:
    """Reads windows of a text one after the other, each from an empty cache.

    The two ways of reading agree in float. They differ in dynamic int8, because its rounding depends on all
    activations in a tensor. Decoding reads token by token.

    Args:
        session: A session that nothing else uses meanwhile. Its cache is overwritten.
        windows: Ids int64 [windows, length], length at most the context.
        token_by_token: Whether each id is a separate step. If not, a window is one run.

    Yields:
        The logits float32 [length, vocab] after each id of a window, valid until the next window is read.
    """
    for ids in windows:
        session.reset()
        yield np.stack([session.step(int(i)).copy() for i in ids]) if token_by_token else session.score(ids)
