"""Measures how far a variant's logits are from the float model's. It needs only numpy and onnxruntime."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from runtimes.bundle.figures import Fidelity
from runtimes.engine.arrays import FloatArray, IdArray
from runtimes.engine.loss import log_softmax, negative_log_likelihood, read_windows
from runtimes.engine.session import Session
from slm.console.errors import SlmxError
from slm.metrics import bits_per_byte


@dataclass(frozen=True)
class Reference:
    """A text in windows, and the float model's logits for it.

    Attributes:
        inputs: Ids int64 [windows, block_size].
        targets: The id after each input, int64 [windows, block_size].
        logits: Returns the float model's logits [block_size, vocab] of the window with a given index.
        bytes_per_token: Mean number of UTF-8 bytes of the text for one id.
    """

    inputs: IdArray
    targets: IdArray
    logits: Callable[[int], FloatArray]
    bytes_per_token: float

    def nats(self) -> float:
        """Computes the float model's total negative log-likelihood of all targets in nats; NaN if a logit is NaN."""
        return sum(
            negative_log_likelihood(log_softmax(self.logits(row)), targets) for row, targets in enumerate(self.targets)
        )

    def bits_per_byte(self, nats: float) -> float:
        """Converts a total negative log-likelihood of all targets from nats to bits per byte."""
        return bits_per_byte(nats, self.targets.size, self.bytes_per_token)


def measure_fidelity(
    session: Session, reference: Reference, float_bits_per_byte: float, token_by_token: bool, name: str = "the variant"
) -> Fidelity:
    """Reads the text with a session and compares its logits with the float model's.

    Args:
        session: A session of the variant; its cache is overwritten.
        reference: The text and the float model's logits.
        float_bits_per_byte: The float model's figure on the same text.
        token_by_token: Whether each id is a step of its own, as in decoding, instead of one run for a window.
        name: The variant, for an error.

    Raises:
        SlmxError: The session's logits are NaN or infinite.
    """
    nats = kl = agree = 0.0
    readings = read_windows(session, reference.inputs, token_by_token)
    for row, (logits, targets) in enumerate(zip(readings, reference.targets, strict=True)):
        ours, theirs = log_softmax(logits), log_softmax(reference.logits(row))
        nats += negative_log_likelihood(ours, targets)
        kl += float((np.exp(theirs) * (theirs - ours)).sum(dtype=np.float64))
        agree += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
    figure = reference.bits_per_byte(nats)
    if not math.isfinite(figure):
        raise SlmxError(f"{name}: its logits are NaN or infinite; use another variant")
    return Fidelity(
        bits_per_byte=round(figure, 5),
        bpb_increase=round(figure / float_bits_per_byte - 1, 6),
        kl=round(max(kl, 0.0) / reference.targets.size, 7),  # float32 rounding can make a KL of zero negative
        greedy_agreement=round(agree / reference.targets.size, 5),
    )
