"""`GET /metrics`: figures in the text format of Prometheus."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from runtimes.serve.answers.state import state_of
from runtimes.serve.protocol.http_figures import Histogram, HttpFigures
from runtimes.serve.scheduler.figures import SchedulerFigures
from slm.memory import resident_bytes

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Samples = Iterable[tuple[str, float]]  # the labels of a sample in braces, and its value


async def metrics(request: Request) -> Response:
    """Answers with all figures."""
    models = {name: scheduler.figures() for name, scheduler in state_of(request).models.items()}
    return Response(render(models, request.app.state.figures), media_type=CONTENT_TYPE)


def render(models: Mapping[str, SchedulerFigures], http: HttpFigures) -> str:
    """Returns all figures as text.

    Args:
        models: What the scheduler of each model does.
        http: What the event loop counted.
    """
    return "\n".join([*_model_lines(models), *_http_lines(http), *_process_lines(), ""])


def metric(name: str, help_: str, kind: str, samples: Samples) -> list[str]:
    """Returns the lines of a metric."""
    return [*_head(name, help_, kind), *(f"{name}{labels} {value}" for labels, value in samples)]


def histogram(name: str, help_: str, values: Histogram) -> list[str]:
    """Returns the lines of a histogram."""
    counts = values.cumulative()
    buckets = zip((*map(str, values.bounds), "+Inf"), counts, strict=True)
    return [
        *_head(name, help_, "histogram"),
        *(f'{name}_bucket{{le="{bound}"}} {count}' for bound, count in buckets),
        f"{name}_sum {values.total!r}",
        f"{name}_count {counts[-1]}",
    ]


def _head(name: str, help_: str, kind: str) -> list[str]:
    """Returns the two lines before the samples of a metric."""
    return [f"# HELP {name} {help_}", f"# TYPE {name} {kind}"]


def labels(**values: object) -> str:
    """Returns labels in braces, with the escapes that the format needs."""
    escaped = (
        (name, str(value).replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n"))
        for name, value in values.items()
    )
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"


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
        *histogram(
            "slmx_time_to_first_token_seconds", "From a request to the first token of its stream.", http.first_token
        ),
        *histogram("slmx_request_seconds", "Duration of requests for stories.", http.seconds),
        *histogram("slmx_event_loop_lag_seconds", "How late the event loop woke a sleeping task.", http.lag),
        *metric("slmx_event_loop_lag_max_seconds", "The largest lag so far.", "gauge", [("", http.largest_lag)]),
    ]


def _process_lines() -> list[str]:
    """Returns the memory and the descriptors of this process, if Linux shows them."""
    try:
        resident = resident_bytes()
        descriptors = len(os.listdir("/proc/self/fd"))
    except OSError:
        return []
    return [
        *metric("process_resident_memory_bytes", "Memory of the process.", "gauge", [("", resident)]),
        *metric("process_open_fds", "Open file descriptors.", "gauge", [("", descriptors)]),
    ]
