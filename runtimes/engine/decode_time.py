"""Measures the time of a decoding loop, for comparisons."""

from __future__ import annotations

import time

from runtimes.engine.sampler import Sampler
from runtimes.engine.session import Session
from runtimes.types import SamplingParams


def decode_seconds(session: Session, prompt: list[int], sampling: SamplingParams, tokens: int) -> float:
    """Returns the seconds that `tokens` steps of the session take, including sampling, without the prefill."""
    sampler = Sampler(sampling, prompt)
    session.reset()
    logits = session.prefill(prompt)
    started = time.perf_counter()
    for _ in range(tokens):
        logits = session.step(sampler(logits))
    return time.perf_counter() - started
