"""HTTP/1.1 as it is, requests sent ahead, early answers, and bytes that are no request."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("uvicorn", reason="needs the extra [serve]")

from runtimes.serve.protocol.connection import BoundedProtocol
from runtimes.serve.protocol.limits import Limits
from tests.runtimes.serve.protocol.requests import GET, LAST, POST
from tests.runtimes.serve.sockets import (
    Echo,
    Running,
    error_of,
    read_all,
    read_answer,
    running,
    status_of,
)
from tests.waiting import wait_until


def test_requests_share_a_connection(server: Running, app: Echo) -> None:
    with server.connect() as client:
        for body in (b"one", b"two"):
            client.sendall(POST + b"Content-Length: 3\r\n\r\n" + body)
            assert read_answer(client).endswith(body)
        client.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        assert read_answer(client).endswith(b"abcde")
        client.sendall(LAST)
        assert status_of(read_all(client)) == 200
    assert app.bodies == [b"one", b"two", b"abcde", b""]


def test_no_part_of_an_answer_waits_for_the_client_to_confirm_another(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []

    class Watched(BoundedProtocol):
        def on_message_complete(self) -> None:
            connection = self.transport.get_extra_info("socket")
            found.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            super().on_message_complete()

    monkeypatch.setattr("tests.runtimes.serve.sockets.BoundedProtocol", Watched)
    with running(Echo()) as watched:
        watched.send(LAST)
    assert found == [1]


def test_trailers_do_not_become_headers(server: Running, app: Echo) -> None:
    chunked = POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    assert server.send(chunked + b"1\r\na\r\n0\r\nAuthorization: Bearer x\r\n\r\n").endswith(b"a")
    assert [name for name, _ in app.headers[0]] == [b"host", b"transfer-encoding", b"connection"]


def test_of_requests_sent_ahead_only_the_first_is_answered(server: Running, app: Echo) -> None:
    answered = server.send(POST + b"Content-Length: 1\r\n\r\na" + GET * 50)
    assert answered.count(b"HTTP/1.1") == 1
    assert answered.endswith(b"a")
    assert app.asked == ["/"]


def test_a_request_after_all_bytes_of_an_answer_is_not_ahead_of_it(server: Running, app: Echo) -> None:
    with server.connect() as client:
        for body in (b"", b"abc"):
            client.sendall(b"GET /empty HTTP/1.1\r\nHost: x\r\n\r\n")
            assert status_of(read_answer(client)) == 200
            client.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body))
            client.sendall(body)
            assert read_answer(client).endswith(body or b"hello")
    assert app.asked == ["/empty", "/"] * 2


def test_a_client_that_sent_ahead_and_hangs_up_stops_the_work(server: Running, app: Echo) -> None:
    with server.connect() as client:
        client.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
        wait_until(lambda: bool(app.asked))
    wait_until(lambda: app.gone == 1)
    assert app.asked == ["/wait"]


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
def test_an_upgrade_is_not_made(server: Running, app: Echo, protocol: bytes) -> None:
    upgrade = b"HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: " + protocol + b"\r\n"
    answered = server.send(b"GET / " + upgrade + b"\r\nmore")
    assert (status_of(answered), answered[-5:]) == (200, b"hello")
    assert error_of(server.send(b"POST / " + upgrade + b"Content-Length: 3\r\n\r\nabc")) == (400, "no_upgrade")
    assert app.asked == ["/"]


def test_a_body_that_waits_for_100_is_asked_for(server: Running) -> None:
    with server.connect() as client:
        client.sendall(POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        assert read_all(client).endswith(b"abc")


def test_an_answer_instead_of_100_ends_the_connection(server: Running) -> None:
    with server.connect() as client:
        client.sendall(b"POST /early HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        answered = read_all(client)
    assert status_of(answered) == 401


@pytest.mark.parametrize("connection", [b"close", b"keep-alive"])
def test_an_early_answer_is_read_by_a_client_that_still_sends(server: Running, connection: bytes) -> None:
    size = 2**23
    head = b"POST /early HTTP/1.1\r\nHost: x\r\nConnection: " + connection + b"\r\nContent-Length: %d\r\n\r\n" % size
    with server.connect() as client:
        client.sendall(head)
        for _ in range(16):
            client.sendall(bytes(size // 16))
        answered = read_all(client)
    assert status_of(answered) == 401
    assert answered.endswith(b"no")


def test_a_client_that_sends_without_end_after_an_early_answer_is_cut_off(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtimes.serve.protocol.connection.MOST_IGNORED", 2**20)
    with server.connect() as client:
        client.sendall(b"POST /early HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        with suppress(ConnectionError):
            for _ in range(1000):
                client.sendall(b"ffff\r\n" + bytes(2**16 - 1) + b"\r\n")
    assert server.figures.refused == {"flood": 1}


@pytest.mark.parametrize(
    "request_",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        b"GET http://evil HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT evil:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_400(server: Running, app: Echo, request_: bytes) -> None:
    assert error_of(server.send(request_)) == (400, "invalid_http")
    assert not app.asked


def test_a_body_with_broken_chunks_gets_400_and_the_application_stops(server: Running, app: Echo) -> None:
    assert error_of(server.send(POST + b"Transfer-Encoding: chunked\r\n\r\nx\r\n")) == (400, "invalid_http")
    wait_until(lambda: app.gone == 1)


PARTS = (
    *(b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\n", b"GET /early HTTP/1.0\r\n", b"HEAD /empty HTTP/1.1\r\n", b"\r\n"),
    *(b"Host: x\r\n", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"),
    *(
        b"Connection: Upgrade\r\n",
        b"Upgrade: h2c\r\n",
        b"Expect: 100-continue\r\n",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"abc",
    ),
)
ANYTHING = st.lists(st.one_of(st.sampled_from(PARTS), st.binary(max_size=20)), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def hardened() -> Iterator[Running]:
    """A server that loses patience at once."""
    with running(Echo(), Limits(receive_seconds=0.02, write_seconds=0.5, idle_seconds=1)) as server:
        yield server


@given(sent=ANYTHING, closes_half=st.booleans())
@settings(max_examples=150, deadline=None)
def test_whatever_is_sent_gets_answers_in_http_and_leaves_no_connection(
    hardened: Running, sent: list[bytes], closes_half: bool
) -> None:
    answered = b""
    with hardened.connect() as client, suppress(ConnectionError):
        for part in sent:
            client.sendall(part)
        if closes_half:
            client.shutdown(socket.SHUT_WR)
        answered = client.recv(2**16)
    if answered:
        assert re.match(
            rb"HTTP/1\.1 (100 Continue|200 OK|400 Bad Request|401 Unauthorized|408 Request Timeout)\r\n", answered
        )
    wait_until(lambda: hardened.figures.connections == 0)
