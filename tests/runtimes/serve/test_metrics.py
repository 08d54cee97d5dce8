from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("uvicorn", reason="needs the extra [serve]")

from runtimes.serve.log import LOG, JsonLines, configure_log, plain_path
from runtimes.serve.metrics import Histogram, HttpFigures, measure_lag, render
from runtimes.serve.scheduler import SchedulerFigures
from tests.runtimes.serve.apps import ENDLESS, KEY, Whole, keyed, serving_whole
from tests.runtimes.serve.sockets import wait_until

# The text format, https://prometheus.io/docs/instrumenting/exposition_formats
LABELS = r'\{[a-z]+="(?:[^"\\\n]|\\["\\n])*"(?:,[a-z]+="(?:[^"\\\n]|\\["\\n])*")*\}'
SAMPLE = re.compile(rf"([a-z_]+)({LABELS})? ([0-9.e+-]+|\+Inf)")
FIGURES = SchedulerFigures(8, 64, 3, 5, 100, 40, 900, 300, {"stop": 2, "length": 1}, 4, True)


@pytest.fixture
def server() -> Iterator[Whole]:
    """A server with a key."""
    with serving_whole(settings=keyed()) as server:
        server.http.headers["Authorization"] = f"Bearer {KEY}"
        yield server


def requests_in(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """The lines of requests."""
    return [record for record in caplog.records if record.name == LOG.name]


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
    found = samples(render({"nano": FIGURES, 'odd"\\\n': FIGURES}, HttpFigures()))
    assert found['slmx_stories_running{model="nano"}'] == 3
    assert found['slmx_stories_waiting{model="nano"}'] == 5
    assert found['slmx_prompt_tokens_total{model="nano"}'] == 100
    assert found['slmx_prompt_tokens_reused_total{model="nano"}'] == 40
    assert found['slmx_generation_tokens_total{model="nano"}'] == 900
    assert found['slmx_stories_total{model="nano",reason="length"}'] == 1
    assert found['slmx_stories_cancelled_total{model="nano"}'] == 4
    assert found[r'slmx_up{model="odd\"\\\n"}'] == 1


def test_a_histogram_counts_up() -> None:
    histogram = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        histogram.add(value)
    text = "\n".join([*histogram.lines("h", "Help."), ""])
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


def test_a_request_is_one_line_without_prompt_and_key(server: Whole, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "slmx.serve"):
        identity = server.http.post(
            "/v1/completions?secret=1", json={"prompt": "a secret beginning", "max_tokens": 3, "user": "a secret name"}
        ).headers["x-request-id"]
        wait_until(lambda: bool(requests_in(caplog)))
    (record,) = requests_in(caplog)
    line = record.getMessage()
    assert re.fullmatch(rf"127\.0\.0\.1 POST /v1/completions 200 [0-9.]+ ms( 3 tokens)? {identity}", line)
    fields = json.loads(JsonLines().format(record))
    assert fields.keys() >= {"time", "level", "client", "method", "path", "status", "ms", "request"}
    assert "secret" not in line + json.dumps(fields)
    assert KEY not in line + json.dumps(fields)


def test_a_stream_that_fails_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    with serving_whole(seconds=0.2) as server, caplog.at_level("INFO", "slmx.serve"):
        assert "request_timeout" in server.ask(**ENDLESS, stream=True).text
        wait_until(lambda: bool(requests_in(caplog)))
        (record,) = requests_in(caplog)
        assert "POST /v1/completions 200 request_timeout " in record.getMessage()
        assert json.loads(JsonLines().format(record))["outcome"] == "request_timeout"
        found = samples(server.http.get("/metrics").text)
    assert found['slmx_streams_failed_total{reason="request_timeout"}'] == 1


def test_a_client_that_leaves_a_stream_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with serving_whole() as server, caplog.at_level("INFO", "slmx.serve"):
        with server.http.stream("POST", "/v1/completions", json={**ENDLESS, "stream": True}) as got:
            next(got.iter_lines())
        wait_until(lambda: "POST /v1/completions 200 client_gone " in caplog.text)


def test_a_client_that_is_gone_is_logged_as_499(server: Whole, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "slmx.serve"):
        with server.connect() as client:
            client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n")
            client.sendall(b"Content-Type: application/json\r\nAuthorization: Bearer " + KEY.encode() + b"\r\n\r\n{")
            wait_until(lambda: server.figures.in_progress == 1)
        wait_until(lambda: "POST /v1/completions 499" in caplog.text)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"/v1/models?key=secret", "/v1/models"),
        (b"/a%0Ab", "/a%0Ab"),
        (b"/a\x1b[31m\nb c", "/a?[31m?b?c"),
        (b"/\xff", "/\\xff"),
        (b"/" + b"a" * 300, "/" + "a" * 199 + "..."),
    ],
)
def test_a_path_cannot_forge_the_log(raw: bytes, shown: str) -> None:
    assert plain_path(raw).rstrip(".") == shown.rstrip(".")
    assert len(plain_path(raw)) <= 203


def test_an_address_of_a_proxy_cannot_forge_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with serving_whole(trust_proxy=True) as server, caplog.at_level("INFO", "slmx.serve"):
        server.http.get("/healthz", headers={"X-Forwarded-For": "10.0.0.1 GET /v1/forged 200"})
        wait_until(lambda: bool(requests_in(caplog)))
    assert " GET /v1/forged" not in requests_in(caplog)[0].getMessage()


def test_the_log_goes_to_stderr_and_errors_keep_their_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    root, uvicorn = logging.getLogger(), logging.getLogger("uvicorn.error")
    before = (root.handlers, root.level, LOG.level, uvicorn.level, logging.raiseExceptions)
    try:
        for as_json in (True, False):
            configure_log(as_json)
            LOG.info("told")
            logging.getLogger("uvicorn.error").warning("not told")
            try:
                raise RuntimeError("broken")
            except RuntimeError:
                LOG.exception("failed")
            out, err = capfd.readouterr()
            assert out == ""
            assert "not told" not in err
            assert "RuntimeError: broken" in err
            if as_json:
                told, failed = map(json.loads, err.splitlines())
                assert (told["level"], told["message"]) == ("info", "told")
                assert "Traceback" in failed["exception"]
    finally:
        root.handlers, root.level, LOG.level, uvicorn.level, logging.raiseExceptions = before
