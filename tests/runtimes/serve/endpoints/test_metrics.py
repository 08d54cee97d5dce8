from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterator

import pytest

pytest.importorskip("uvicorn", reason="needs the extra [serve]")

from runtimes.engine.batcher import Batcher
from runtimes.engine.story import Story
from runtimes.serve.endpoints.metrics import histogram, render
from runtimes.serve.protocol.http_figures import Histogram, HttpFigures, measure_lag
from runtimes.serve.scheduler.figures import SchedulerFigures
from tests.runtimes.serve.apps import KEY, Whole, keyed, serving_whole
from tests.waiting import wait_until

# The text format, https://prometheus.io/docs/instrumenting/exposition_formats
LABELS = r'\{[a-z]+="(?:[^"\\\n]|\\["\\n])*"(?:,[a-z]+="(?:[^"\\\n]|\\["\\n])*")*\}'
SAMPLE = re.compile(rf"([a-z_]+)({LABELS})? ([0-9.e+-]+|\+Inf)")
FIGURES = SchedulerFigures(8, 3, 5, 100, 40, 900, 300, {"stop": 2, "length": 1}, 4, True)


@pytest.fixture
def server() -> Iterator[Whole]:
    """A server with a key."""
    with serving_whole(settings=keyed()) as server:
        server.http.headers["Authorization"] = f"Bearer {KEY}"
        yield server


def samples(text: str) -> dict[str, float]:
    """The samples of a text in the format of Prometheus, which is checked."""
    assert text.endswith("\n")
    found: dict[str, float] = {}
    kinds: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            assert re.fullmatch(r"# HELP [a-z_]+ [A-Z0-9].+\.", line)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in kinds, "the lines of a metric stand together"
            kinds[name] = kind
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert re.sub("_(bucket|sum|count)$", "", match[1]) in kinds or match[1] in kinds
            assert match[1].endswith("_total") == (kinds.get(match[1]) == "counter")
            found[match[1] + (match[2] or "")] = float(match[3])
    return found


def test_the_figures_of_each_model() -> None:
    http = HttpFigures(streams_failed=Counter(request_timeout=2))
    found = samples(render({"nano": FIGURES, 'odd"\\\n': FIGURES}, http))
    assert found['slmx_stories_running{model="nano"}'] == 3
    assert found['slmx_stories_waiting{model="nano"}'] == 5
    assert found['slmx_prompt_tokens_total{model="nano"}'] == 100
    assert found['slmx_prompt_tokens_reused_total{model="nano"}'] == 40
    assert found['slmx_generation_tokens_total{model="nano"}'] == 900
    assert found['slmx_stories_total{model="nano",reason="length"}'] == 1
    assert found['slmx_stories_cancelled_total{model="nano"}'] == 4
    assert found[r'slmx_up{model="odd\"\\\n"}'] == 1
    assert found['slmx_streams_failed_total{reason="request_timeout"}'] == 2


def test_a_histogram_counts_up() -> None:
    values = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        values.add(value)
    text = "\n".join([*histogram("h", "Help.", values), ""])
    assert samples(text) == {
        'h_bucket{le="0.1"}': 2,
        'h_bucket{le="1.0"}': 3,
        'h_bucket{le="+Inf"}': 4,
        "h_sum": 7.65,
        "h_count": 4,
    }


def test_a_server_counts_what_it_does(server: Whole) -> None:
    server.ask()
    server.ask(stream=True)
    server.ask(prompt=5)
    for number in range(20):
        server.http.get(f"/nothing/{number}")
    response = server.http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = samples(response.text)
    assert found['slmx_http_requests_total{route="/v1/completions",status="200"}'] == 2
    assert found['slmx_http_requests_total{route="/v1/completions",status="400"}'] == 1
    assert found['slmx_http_requests_total{route="other",status="404"}'] == 20
    assert found["slmx_request_seconds_count"] == 3
    assert found["slmx_time_to_first_token_seconds_count"] == 1
    assert found["slmx_http_requests_in_progress"] == 1
    assert found["slmx_connections"] == 1
    assert found['slmx_generation_tokens_total{model="nano"}'] == 8
    assert found['slmx_up{model="nano"}'] == 1
    assert found["process_resident_memory_bytes"] > 2**20
    assert found["process_open_fds"] > 3


def test_a_stream_without_a_token_has_no_time_to_its_first_token(
    server: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such are a stream that only scores its prompt, and one that an error ends before a token is sent."""

    def fails(_: Batcher) -> list[tuple[Story, str]]:
        raise OSError("no memory")

    assert '"text":"Once"' in server.ask(stream=True, echo=True, max_tokens=0).text
    with monkeypatch.context() as patch:
        patch.setattr(Batcher, "step", fails)
        assert '"code":"model_error"' in server.ask(stream=True).text
    assert server.figures.first_token.cumulative()[-1] == 0
    server.ask(stream=True)
    assert server.figures.first_token.cumulative()[-1] == 1


def test_the_lag_of_the_event_loop_is_measured(server: Whole) -> None:
    wait_until(lambda: samples(server.http.get("/metrics").text)["slmx_event_loop_lag_seconds_count"] > 1)
    figures = HttpFigures()

    async def block() -> None:
        measuring = asyncio.create_task(measure_lag(figures))
        await asyncio.sleep(0)
        time.sleep(0.4)
        while not figures.largest_lag:
            await asyncio.sleep(0.01)
        measuring.cancel()

    asyncio.run(block())
    assert figures.largest_lag > 0.25
