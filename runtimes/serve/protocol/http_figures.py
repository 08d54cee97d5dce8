"""What the event loop counts: requests, connections, and how long they take."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

LAG_EVERY = 0.1  # seconds between two measurements of the event loop
FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
LONG = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Histogram:
    """Counts values by their size.

    Args:
        bounds: The upper bounds of the buckets, ascending.

    Attributes:
        bounds: The bounds.
        total: The sum of all values.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.total = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def add(self, value: float) -> None:
        """Counts a value."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[int]:
        """Returns how many values are at most each bound, and last how many there are."""
        return list(accumulate(self._counts))


@dataclass
class HttpFigures:
    """What the event loop counts. Only the thread of the event loop changes it.

    Attributes:
        requests: Answered requests, by route and status.
        refused: Connections that were closed before a request was read or an answer was sent whole, by reason.
        streams_failed: Streams that had begun and that an error ended, by its code.
        connections: Connections that are open now.
        in_progress: Requests that are answered now.
        first_token: Seconds from a request to the first event of its stream that holds a token.
        seconds: Seconds of requests for stories.
        lag: Seconds that the event loop was late.
        largest_lag: The largest of them.
    """

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    streams_failed: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    in_progress: int = 0
    first_token: Histogram = field(default_factory=lambda: Histogram(LONG))
    seconds: Histogram = field(default_factory=lambda: Histogram(LONG))
    lag: Histogram = field(default_factory=lambda: Histogram(FAST))
    largest_lag: float = 0.0


async def measure_lag(figures: HttpFigures) -> None:
    """Records until it is cancelled how late the event loop wakes a task that sleeps."""
    while True:
        before = time.perf_counter()
        await asyncio.sleep(LAG_EVERY)
        lag = max(time.perf_counter() - before - LAG_EVERY, 0.0)
        figures.lag.add(lag)
        figures.largest_lag = max(figures.largest_lag, lag)
