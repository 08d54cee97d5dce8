"""`GET /metrics`: figures in the text format of Prometheus."""

from __future__ import annotations

import asyncio
import mmap
import os
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runtimes.serve.scheduler import SchedulerFigures

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LAG_EVERY = 0.1  # seconds between two measurements of the event loop
FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
LONG = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
Samples = Iterable[tuple[str, float]]  # the labels of a sample in braces, and its value


class Histogram:
    """Counts values by their size.

    Args:
        bounds: The upper bounds of the buckets, ascending.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        """Counts a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def lines(self, name: str, help_: str) -> list[str]:
        """Returns the lines of this histogram."""
        found, total = head(name, help_, "histogram"), 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            found.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*found, f"{name}_sum {self._total!r}", f"{name}_count {total}"]


@dataclass
class HttpFigures:
    """What the event loop counts. Only the thread of the event loop changes it.

    Attributes:
        requests: Answered requests, by route and status.
        refused: Connections that were closed before a request was read or an answer was sent whole, by reason.
        streams_failed: Streams that had begun and that an error ended, by its code.
        connections: Connections that are open now.
        in_progress: Requests that are answered now.
        first_token: Seconds from a request to the first token of a stream.
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


def head(name: str, help_: str, kind: str) -> list[str]:
    """Returns the two lines before the samples of a metric."""
    return [f"# HELP {name} {help_}", f"# TYPE {name} {kind}"]


def metric(name: str, help_: str, kind: str, samples: Samples) -> list[str]:
    """Returns the lines of a metric."""
    return [*head(name, help_, kind), *(f"{name}{labels} {value}" for labels, value in samples)]


def labels(**values: object) -> str:
    """Returns labels in braces, with the escapes that the format needs."""
    escaped = (
        (name, str(value).replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n"))
        for name, value in values.items()
    )
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"


def render(models: Mapping[str, SchedulerFigures], http: HttpFigures) -> str:
    """Returns all figures as text.

    Args:
        models: What the scheduler of each model does.
        http: What the event loop counted.
    """
    return "\n".join([*_model_lines(models), *_http_lines(http), *_process_lines(), ""])


def _model_lines(models: Mapping[str, SchedulerFigures]) -> list[str]:
    named = [(labels(model=name), figures) for name, figures in models.items()]
    tables: list[tuple[str, str, str, list[tuple[str, float]]]] = [
        ("up", "1 if the thread of the model runs.", "gauge", [(m, int(f.alive)) for m, f in named]),
        ("slots", "Stories that can run at the same time.", "gauge", [(m, f.slots) for m, f in named]),
        ("stories_running", "Stories that run now.", "gauge", [(m, f.running) for m, f in named]),
        ("stories_waiting", "Stories that wait for a slot now.", "gauge", [(m, f.waiting) for m, f in named]),
        ("prompt_tokens_total", "Tokens of prompts.", "counter", [(m, f.prompt_tokens) for m, f in named]),
        (
            "prompt_tokens_reused_total",
            "Tokens of prompts that were copied from another story instead of read.",
            "counter",
            [(m, f.reused_prompt_tokens) for m, f in named],
        ),
        ("generation_tokens_total", "Tokens written.", "counter", [(m, f.tokens) for m, f in named]),
        ("steps_total", "Steps of the model.", "counter", [(m, f.steps) for m, f in named]),
        (
            "stories_total",
            "Ended stories, by the reason of their end.",
            "counter",
            [
                (labels(model=name, reason=reason), count)
                for name, figures in models.items()
                for reason, count in sorted(figures.stories.items())
            ],
        ),
        (
            "stories_cancelled_total",
            "Stories whose client was gone or out of time.",
            "counter",
            [(m, f.cancelled) for m, f in named],
        ),
    ]
    return [line for name, help_, kind, samples in tables for line in metric(f"slmx_{name}", help_, kind, samples)]


def _http_lines(http: HttpFigures) -> list[str]:
    requests = [(labels(route=route, status=status), count) for (route, status), count in sorted(http.requests.items())]
    refused = [(labels(reason=reason), count) for reason, count in sorted(http.refused.items())]
    failed = [(labels(reason=reason), count) for reason, count in sorted(http.streams_failed.items())]
    return [
        *metric("slmx_http_requests_total", "Answered requests.", "counter", requests),
        *metric("slmx_http_requests_in_progress", "Requests answered now.", "gauge", [("", http.in_progress)]),
        *metric("slmx_streams_failed_total", "Streams that an error ended, after status 200.", "counter", failed),
        *metric("slmx_connections", "Open connections.", "gauge", [("", http.connections)]),
        *metric("slmx_connections_refused_total", "Connections closed by a limit.", "counter", refused),
        *http.first_token.lines("slmx_time_to_first_token_seconds", "From a request to the first token of its stream."),
        *http.seconds.lines("slmx_request_seconds", "Duration of requests for stories."),
        *http.lag.lines("slmx_event_loop_lag_seconds", "How late the event loop woke a sleeping task."),
        *metric("slmx_event_loop_lag_max_seconds", "The largest lag so far.", "gauge", [("", http.largest_lag)]),
    ]


def _process_lines() -> list[str]:
    """Returns the memory and the descriptors of this process, if Linux shows them."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        descriptors = len(os.listdir("/proc/self/fd"))
    except OSError:
        return []
    resident = pages * mmap.PAGESIZE
    return [
        *metric("process_resident_memory_bytes", "Memory of the process.", "gauge", [("", resident)]),
        *metric("process_open_fds", "Open file descriptors.", "gauge", [("", descriptors)]),
    ]
