"""How far a variant's logits are from the float model's, in numpy and onnxruntime alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtimes.bundle.figures import Fidelity
from runtimes.engine.session import Session
from slm.data.corpus import bits_per_byte
from slm.errors import SlmxError

FloatArray = npt.NDArray[np.float32]
IdArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Reference:
    """Text as windows int64 [windows, block_size], and the float model's logits [block_size, vocab] of each."""

    inputs: IdArray
    targets: IdArray
    logits: Callable[[int], FloatArray]
    bytes_per_token: float

    def bits_per_byte(self, nats: float) -> float:
        """Bits per byte for a total negative log-likelihood in nats over all targets."""
        return bits_per_byte(nats, self.targets.size, self.bytes_per_token)

    def nats(self) -> float:
        """Total negative log-likelihood of the float model."""
        return sum(_nats(log_softmax(self.logits(row)), targets) for row, targets in enumerate(self.targets))


def log_softmax(logits: FloatArray) -> FloatArray:
    """Log-probabilities float32 [n, vocab]."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    normal: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normal


def _nats(log_probabilities: FloatArray, targets: IdArray) -> float:
    return -float(np.take_along_axis(log_probabilities, targets[:, None], axis=-1).sum(dtype=np.float64))


def measure_fidelity(session: Session, reference: Reference, float_bits_per_byte: float, decode: bool) -> Fidelity:
    """Read every window at once or, with `decode`, token by token; SlmxError when logits are no numbers."""
    nats = kl = agree = 0.0
    for row, (inputs, targets) in enumerate(zip(reference.inputs, reference.targets, strict=True)):
        session.reset()
        logits = np.stack([session.step(int(i)).copy() for i in inputs]) if decode else session.score(inputs)
        ours, theirs = log_softmax(logits), log_softmax(reference.logits(row))
        nats += _nats(ours, targets)
        kl += float((np.exp(theirs) * (theirs - ours)).sum(dtype=np.float64))
        agree += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
    figure = reference.bits_per_byte(nats)
    if not math.isfinite(figure):
        raise SlmxError("the variant gives logits that are no numbers; not published")
    return Fidelity(
        bits_per_byte=round(figure, 5),
        bpb_increase=round(figure / float_bits_per_byte - 1, 6),
        kl=round(max(kl, 0.0) / reference.targets.size, 7),  # float32 rounding can push a KL of nothing below it
        greedy_agreement=round(agree / reference.targets.size, 5),
    )
