"""Comparing sides fairly: in turn, round after round, medians with spread, every sample kept."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from runtimes.engine.sampler import Sampler
from runtimes.engine.session import Session
from runtimes.types import SamplingParams

PAUSE = 0.05  # seconds between sides, so that threads that spin after a run do not slow the next side


@dataclass(frozen=True)
class Samples:
    """Raw samples of one side, all in one unit."""

    values: list[float]

    @property
    def median(self) -> float:
        """The middle sample."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """Half the interquartile range, relative to the median."""
        if len(self.values) < 2:
            return 0.0
        quarters = statistics.quantiles(self.values, n=4)
        return (quarters[2] - quarters[0]) / 2 / self.median


def alternate(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Samples]:
    """Call every side once a round, after one unrecorded round; a side returns its sample."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            time.sleep(PAUSE)
            sample = side()
            if number:
                taken[name].append(sample)
    return {name: Samples(values) for name, values in taken.items()}


def decode_seconds(session: Session, prompt: list[int], sampling: SamplingParams, tokens: int) -> float:
    """Seconds for `tokens` steps of our loop, sampling included, prefill not."""
    sampler = Sampler(sampling, prompt)
    session.reset()
    logits = session.prefill(prompt)
    started = time.perf_counter()
    for _ in range(tokens):
        logits = session.step(sampler(logits))
    return time.perf_counter() - started
