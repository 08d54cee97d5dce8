"""Answers that begin before their request has arrived: the client is told that the connection ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("uvicorn", reason="needs the extra [serve]")

import httpx

from runtimes.serve.protocol.limits import Limits
from tests.runtimes.serve.apps import KEY, Whole, keyed, serving_whole
from tests.runtimes.serve.sockets import error_of, read_all, read_answer, status_of

POST = b"POST /v1/completions HTTP/1.1\r\n"
ALLOWED = b"Authorization: Bearer " + KEY.encode() + b"\r\n"
HOST = b"Host: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"
REFUSED = {
    (400, "invalid_host"): POST + JSON + b"Content-Length: 2\r\n\r\n",
    (401, "invalid_api_key"): POST + HOST + JSON + b"Content-Length: 2\r\n\r\n",
    (403, "wrong_host"): POST + b"Host: evil.example\r\n" + JSON + b"Content-Length: 2\r\n\r\n",
    (404, "unknown_url"): b"POST /nothing HTTP/1.1\r\n" + HOST + ALLOWED + b"Content-Length: 2\r\n\r\n",
    (405, "method_not_allowed"): b"POST /metrics HTTP/1.1\r\n" + HOST + ALLOWED + b"Content-Length: 2\r\n\r\n",
    (413, "body_too_large"): POST + HOST + ALLOWED + JSON + b"Content-Length: 2000\r\n\r\n",
    (415, "unsupported_media_type"): POST + HOST + ALLOWED + b"Content-Length: 2\r\n\r\n",
    (431, "headers_too_large"): POST + b"A: " + b"a" * 20_000,
}


@pytest.fixture(scope="module")
def server() -> Iterator[Whole]:
    """A server with a key and a small limit of bodies."""
    with serving_whole(settings=keyed(limits=Limits(body_bytes=1000))) as server:
        yield server


@pytest.mark.parametrize("refusal", REFUSED, ids=lambda refusal: str(refusal[0]))
def test_an_answer_before_the_body_announces_the_end_of_the_connection(server: Whole, refusal: tuple[int, str]) -> None:
    with server.connect() as client:
        client.sendall(REFUSED[refusal])
        answered = read_answer(client)
        assert error_of(answered) == refusal
        assert answered.lower().count(b"\r\nconnection: close\r\n") == 1
        client.sendall(b"{}")
        assert read_all(client) == b""


def test_an_answer_after_the_body_keeps_the_connection(server: Whole) -> None:
    whole = POST + HOST + b"Content-Length: 2\r\n\r\n{}"
    with server.connect() as client:
        for _ in range(2):
            client.sendall(whole)
            answered = read_answer(client)
            assert status_of(answered) == 401
            assert b"connection:" not in answered.lower()


def test_what_is_too_large_is_told_the_limits(server: Whole) -> None:
    headers = server.send(REFUSED[431, "headers_too_large"])
    assert b"the headers are too large: at most 100 headers and 16,384 bytes in all are possible" in headers
    body = server.send(REFUSED[413, "body_too_large"])
    assert b"the body has more than 1,000 bytes: send less, or start slmx serve with a larger --max-body" in body


@pytest.mark.slow
@pytest.mark.parametrize(("key", "expected"), [("wrong-key", 401), (KEY, 415)])
def test_a_client_that_keeps_its_connections_is_never_cut_off(server: Whole, key: str, expected: int) -> None:
    """httpx sends the headers before the body, so that some answers begin before the body has arrived."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "text/plain"}
    with httpx.Client(base_url=server.url, headers=headers) as client:
        for _ in range(500):
            assert client.post("/v1/completions", content=b"{}").status_code == expected
            assert client.get("/healthz").status_code == 200
