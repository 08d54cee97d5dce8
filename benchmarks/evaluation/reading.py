"""Reads a text with a model, and keeps what each prediction cost.

The logits come from `runtimes.engine.loss`, as in the checks of `slmx export`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from benchmarks.evaluation.subject import Subject
from benchmarks.evaluation.text import EncodedText, IdArray
from runtimes.engine.loss import log_softmax, read_windows
from runtimes.engine.session import Session
from slm.console.errors import SlmxError

FloatArray = npt.NDArray[np.float64]
LogitArray = npt.NDArray[np.float32]
Advance = Callable[[int], None]
OVERLAP = 4  # a sliding window moves by one part in this many of the context


class Way(str, Enum):
    """How a text is read. The value is the name in reports."""

    WINDOWS = "windows"  # consecutive windows of one context, each in one run from an empty cache
    SLIDING = "sliding"  # windows that overlap by three quarters; only the last quarter of each is counted
    TOKENS = "token by token"  # the windows of WINDOWS, each id in a step of its own, as stories are written


@dataclass(frozen=True)
class Comparison:
    """What each prediction of two models has in common, float64 [m] each.

    Attributes:
        divergence: The Kullback-Leibler divergence of the model from the one that it is compared with, in nats.
        same: 1 where both have the same most likely id, else 0.
        change: The true id's probability in the model, minus that in the one that it is compared with.
    """

    divergence: FloatArray
    same: FloatArray
    change: FloatArray


def count_of(encoded: EncodedText, block_size: int, most: int | None) -> int:
    """Returns how many ids are predicted: whole windows, at most `most` ids and at least one window.

    Raises:
        SlmxError: The text is shorter than one context.
    """
    windows = len(encoded.stream.windows(block_size)[0])
    if most is not None:
        windows = min(windows, max(1, most // block_size))
    return windows * block_size


def nats(subject: Subject, encoded: EncodedText, way: Way, most: int | None, advance: Advance) -> FloatArray:
    """Returns the negative log-likelihood of each predicted id in nats, float64 [m].

    Args:
        subject: The model.
        encoded: The text in the ids of its tokenizer.
        way: How it is read.
        most: The most ids to predict, from the start.
        advance: Called with the number of ids after each window.

    Raises:
        SlmxError: The text is shorter than one context, or the logits are NaN or infinite.
    """
    found = [_cost(log_softmax(logits), targets) for logits, targets in _read(subject, encoded, way, most, advance)]
    return _finite(np.concatenate(found), subject)


def compare(
    one: Subject, other: Subject, encoded: EncodedText, way: Way, most: int | None, advance: Advance
) -> tuple[FloatArray, FloatArray, Comparison]:
    """Reads a text with two models of one tokenizer.

    Args:
        one: The model that is compared.
        other: The model that it is compared with.
        encoded: The text in the ids of their tokenizer.
        way: How it is read.
        most: The most ids to predict, from the start.
        advance: Called with the number of ids after each window.

    Returns:
        The nats of each predicted id of `one` and of `other`, and what they have in common.

    Raises:
        SlmxError: As in `nats`.
    """
    columns: list[list[FloatArray]] = [[], [], [], [], []]
    readings = (_read(subject, encoded, way, most, step) for subject, step in ((one, advance), (other, lambda _: None)))
    for (ours, targets), (theirs, _) in zip(*readings, strict=True):
        mine, reference = log_softmax(ours), log_softmax(theirs)
        cost, expected = _cost(mine, targets), _cost(reference, targets)
        divergence = (np.exp(reference) * (reference - mine)).sum(axis=-1, dtype=np.float64)
        same = (mine.argmax(axis=-1) == reference.argmax(axis=-1)).astype(np.float64)
        row = (cost, expected, np.maximum(divergence, 0.0), same, np.exp(-cost) - np.exp(-expected))
        for column, values in zip(columns, row, strict=True):
            column.append(values)
    first, second, divergence, same, change = map(np.concatenate, columns)
    return _finite(first, one), _finite(second, other), Comparison(divergence, same, change)


def _read(
    subject: Subject, encoded: EncodedText, way: Way, most: int | None, advance: Advance
) -> Iterator[tuple[LogitArray, IdArray]]:
    """Yields logits float32 [k, vocab] and the k ids that follow, in the order of the text."""
    block = subject.config.block_size
    count = count_of(encoded, block, most)
    ids = encoded.ids[: count + 1]
    if way is Way.SLIDING:
        yield from _slide(subject.session, ids, block, advance)
        return
    inputs, targets = ids[:-1].reshape(-1, block), ids[1:].reshape(-1, block)
    for logits, expected in zip(read_windows(subject.session, inputs, way is Way.TOKENS), targets, strict=True):
        yield logits, expected
        advance(block)


def _slide(session: Session, ids: IdArray, block: int, advance: Advance) -> Iterator[tuple[LogitArray, IdArray]]:
    step = max(1, block // OVERLAP)
    for start in range(0, len(ids) - 1, step):
        end = min(start + step, len(ids) - 1)
        window = ids[max(0, end - block) : end]
        (logits,) = read_windows(session, window[None], False)
        yield logits[start - end :], ids[start + 1 : end + 1]
        advance(end - start)


def _cost(log_probabilities: LogitArray, targets: IdArray) -> FloatArray:
    return -np.take_along_axis(log_probabilities, targets[:, None], axis=-1)[:, 0].astype(np.float64)


def _finite(values: FloatArray, subject: Subject) -> FloatArray:
    if not np.isfinite(values).all():
        raise SlmxError(f"{subject.name}: its logits are NaN or infinite; evaluate another variant or checkpoint")
    return values
