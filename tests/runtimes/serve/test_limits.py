from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

pytest.importorskip("uvicorn", reason="needs the extra [serve]")

from runtimes.requests.fields import Bounds
from runtimes.serve.protocol.limits import Limits
from runtimes.serve.start import OTHER_DESCRIPTORS, raise_descriptor_limit
from slm.console.errors import SlmxError
from tests.runtimes.serve.apps import ENDLESS, Whole, code_of, serving_whole
from tests.runtimes.serve.sockets import error_of, read_all, status_of
from tests.waiting import wait_until

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
BOUNDS = Bounds(prompt_tokens=12, prompts=2, n=3, logprobs=4, stop=1, max_tokens=30)


def request(**fields: object) -> bytes:
    """The bytes of a request for stories."""
    body = json.dumps(fields).encode()
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(body: bytes, size: int = 100) -> bytes:
    """The bytes of a request with a body in chunks."""
    chunks = (body[start : start + size] for start in range(0, len(body), size))
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks)


def padded(size: int) -> bytes:
    """A valid body of exactly this size."""
    body = json.dumps({"prompt": "Once", "max_tokens": 1}).encode()
    return body + b" " * (size - len(body))


@pytest.fixture(scope="module")
def small() -> Iterator[Whole]:
    """A server with small limits of sizes and fields."""
    with serving_whole(limits=Limits(body_bytes=2000), bounds=BOUNDS) as server:
        yield server


def test_a_body_up_to_the_limit_is_read(small: Whole) -> None:
    assert status_of(small.send(HEAD + b"Content-Length: 2000\r\n\r\n" + padded(2000))) == 200
    assert status_of(small.send(chunked(padded(2000)) + b"0\r\n\r\n")) == 200


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: localhost\r\n\r\n", b"Invalid char in url path"),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na", b"Duplicate Content-Length"),
        (b"GET / HTTP/1.1\nHost: localhost\n\n", b"Expected CRLF"),
        (b"FOO / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"Invalid method"),
    ],
)
def test_what_is_no_http_is_told_why(small: Whole, raw: bytes, reason: bytes) -> None:
    answered = small.send(raw)
    assert error_of(answered) == (400, "invalid_http")
    assert b"this is not HTTP/1.1: " + reason in answered


def test_a_wrong_method_is_told_the_possible_ones(small: Whole) -> None:
    message = small.http.post("/v1/models").json()["error"]["message"]
    assert message == "POST is not possible here: send one of GET, HEAD"


def test_http_1_0_gets_whole_answers_and_no_chunks(small: Whole) -> None:
    plain = request(prompt="Once", max_tokens=2).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    answered = small.send(plain)
    assert status_of(answered) == 200
    assert b"transfer-encoding" not in answered.lower()
    answered = small.send(request(prompt="Once", stream=True).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    assert error_of(answered) == (400, "invalid_value")
    assert b"stream needs HTTP/1.1" in answered
    assert b"transfer-encoding" not in answered.lower()
    answered = small.send(b"GET /v1/models HTTP/1.0\r\n\r\n")
    assert error_of(answered) == (400, "invalid_host")
    assert b"the header Host is missing: send it" in answered


@pytest.mark.parametrize("path", [b"/v1/completions", b"/v1/chat/completions", b"/nothing", b"/v1/models"])
def test_a_larger_content_length_gets_413(small: Whole, path: bytes) -> None:
    head = HEAD.replace(b"/v1/completions", path)
    assert error_of(small.send(head + b"Content-Length: 2001\r\n\r\n" + padded(2001))) == (413, "body_too_large")
    assert error_of(small.send(head + b"Content-Length: 10000000\r\n\r\n")) == (413, "body_too_large")


def test_a_larger_body_of_chunks_gets_413_before_it_ends(small: Whole) -> None:
    for size in (100, 2001):
        assert error_of(small.send(chunked(padded(2001), size))) == (413, "body_too_large")


def test_a_large_body_of_an_ordinary_client_gets_413(small: Whole) -> None:
    for content in (padded(2001), padded(4_000_000)):
        for body in (content, iter([content])):
            response = small.http.post(
                "/v1/completions", content=body, headers={"Content-Type": "application/json"}, timeout=60
            )
            assert code_of(response) == (413, "body_too_large")


def test_large_headers_get_431(small: Whole) -> None:
    answered = small.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nA: " + b"b" * 17_000 + b"\r\n\r\n")
    assert error_of(answered) == (431, "headers_too_large")


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("prompt", "once " * 20, "prompt"),
        ("prompt", [1] * 13, "prompt"),
        ("prompt", ["a", "b", "c"], "prompt"),
        ("n", 4, "n"),
        ("logprobs", 5, "logprobs"),
        ("stop", ["a", "b"], "stop"),
        ("max_tokens", 31, "max_tokens"),
    ],
)
def test_fields_beyond_their_bound_get_400(small: Whole, field: str, value: object, param: str) -> None:
    response = small.ask(**{field: value})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_fields_up_to_their_bounds_are_served(small: Whole) -> None:
    assert small.ask(prompt=["a", "b"], n=3, logprobs=4, stop="x", max_tokens=30).status_code == 200


def test_a_story_is_no_longer_than_the_bound(small: Whole) -> None:
    response = small.http.post("/v1/completions", json={"prompt": "Once", "ignore_eos": True})
    assert response.json()["usage"]["completion_tokens"] == 30


def test_a_request_that_arrives_slowly_gets_408(caplog: pytest.LogCaptureFixture) -> None:
    with serving_whole(limits=Limits(receive_seconds=0.3)) as server, caplog.at_level("INFO", "slmx.serve"):
        with server.connect() as client:
            client.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
            assert error_of(read_all(client)) == (408, "receive_timeout")
        wait_until(lambda: server.figures.requests["/v1/completions", 408] == 1)
    assert "POST /v1/completions 408" in caplog.text


def test_a_full_queue_gets_429_with_a_time_to_wait() -> None:
    with serving_whole(slots=1, queue=1) as server:
        open_ = [server.connect() for _ in range(2)]
        for client in open_:
            client.sendall(request(**ENDLESS))
        wait_until(lambda: server.scheduler.figures().running + server.scheduler.figures().waiting == 2)
        response = server.ask()
        assert code_of(response) == (429, "queue_full")
        assert int(response.headers["retry-after"]) >= 1
        for client in open_:
            client.close()
        wait_until(lambda: server.scheduler.figures().running == 0)
        assert server.ask().status_code == 200


def test_a_request_that_takes_too_long_gets_408_and_its_work_stops() -> None:
    with serving_whole(seconds=0.3) as server:
        assert code_of(server.http.post("/v1/completions", json=ENDLESS)) == (408, "request_timeout")
        stream = server.http.post("/v1/completions", json={**ENDLESS, "stream": True})
        *_, last, done, rest = stream.text.split("\n\n")
        assert (done, rest) == ("data: [DONE]", "")
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "request_timeout"
        wait_until(lambda: server.scheduler.figures().running == 0)
        assert server.scheduler.figures().cancelled == 2


def test_a_stream_that_nobody_reads_is_cut_off_and_its_work_stops() -> None:
    with serving_whole(limits=Limits(write_seconds=0.5)) as server, server.connect(receive_buffer=4096) as client:
        client.sendall(request(**ENDLESS, stream=True, logprobs=20))
        wait_until(lambda: server.scheduler.figures().running == 1)
        wait_until(lambda: server.scheduler.figures().running == 0)
        assert server.scheduler.figures().cancelled == 1
        assert server.figures.refused == {"slow_reader": 1}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("how", ["hangs up", "closes its half", "sends ahead"])
def test_the_work_of_a_client_that_is_gone_stops(stream: bool, how: str) -> None:
    with serving_whole(slots=1) as server:
        with server.connect() as client:
            client.sendall(request(**ENDLESS, stream=stream))
            wait_until(lambda: server.scheduler.figures().tokens > 0)
            if how == "closes its half":
                client.shutdown(1)
                wait_until(lambda: server.scheduler.figures().running == 0)
            elif how == "sends ahead":
                client.sendall(request(**ENDLESS) * 2)
        wait_until(lambda: server.scheduler.figures().running == 0)
        assert server.scheduler.figures().cancelled == 1
        wait_until(lambda: server.figures.connections == 0)


def test_more_connections_get_503_and_do_not_disturb_a_stream() -> None:
    with serving_whole(limits=Limits(connections=2)) as server:
        stream = server.connect()
        stream.sendall(request(**ENDLESS, stream=True))
        wait_until(lambda: server.scheduler.figures().running == 1)
        idle = server.connect()
        with server.connect() as client:
            assert error_of(read_all(client)) == (503, "too_many_connections")
        assert stream.recv(100)
        assert server.scheduler.figures().running == 1
        idle.close()
        stream.close()


def test_many_connections_that_come_and_go_are_no_crowd() -> None:
    with serving_whole(limits=Limits(connections=64)) as server:
        for number in range(3000):
            with server.connect() as client:
                if number % 2:
                    client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"[: number % 50])
        assert server.ask().status_code == 200
        server.http.close()
        wait_until(lambda: server.figures.connections == 0)
        assert server.figures.refused["connections"] == 0


def test_the_limit_of_open_files_is_raised_as_far_as_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: raised.append(limits))
    for soft, hard in ((100, 10_000), (100, -1), (10_000, 10_000), (-1, -1)):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, soft=soft, hard=hard: (soft, hard))
        raise_descriptor_limit(300)
    assert raised == [(600 + OTHER_DESCRIPTORS, 10_000), (600 + OTHER_DESCRIPTORS, -1)]
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (100, 328))
    with pytest.raises(
        SlmxError, match=r"300 connections need 728 open files, the system allows 328: --connections 100,"
    ):
        raise_descriptor_limit(300)
