from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("uvicorn", reason="needs the extra [serve]")

from runtimes.serve.limits import Limits
from runtimes.serve.protocol import BoundedProtocol
from tests.runtimes.serve.sockets import (
    Echo,
    Running,
    error_of,
    read_all,
    read_answer,
    running,
    status_of,
    wait_until,
)

QUICK = Limits(receive_seconds=0.5, write_seconds=0.5, idle_seconds=1)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def app() -> Echo:
    """An application that tells what reached it."""
    return Echo()


@pytest.fixture
def server(app: Echo) -> Iterator[Running]:
    """A server of it with the default limits."""
    with running(app) as server:
        yield server


@pytest.fixture
def quick(app: Echo) -> Iterator[Running]:
    """A server of it that soon loses patience."""
    with running(app, QUICK) as server:
        yield server


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


@pytest.mark.parametrize("begin", [b"G", GET[:-2], POST + b"A: b\r\n"], ids=["a letter", "a header", "headers"])
def test_headers_that_come_slowly_get_408(quick: Running, app: Echo, begin: bytes) -> None:
    with quick.connect() as client:
        client.sendall(begin)
        assert error_of(read_all(client)) == (408, "receive_timeout")
    assert not app.asked
    assert quick.figures.refused == {"receive_timeout": 1}


def test_each_byte_of_the_headers_does_not_give_more_time(quick: Running, app: Echo) -> None:
    with quick.connect() as client:
        client.sendall(GET[:-2])
        while not quick.figures.refused:
            client.sendall(b"a: b\r\n")
            time.sleep(0.05)
        assert error_of(read_all(client)) == (408, "receive_timeout")
    assert not app.asked


def test_a_slow_body_gets_408_and_the_application_stops(quick: Running, app: Echo) -> None:
    with quick.connect() as client:
        client.sendall(POST + b"Content-Length: 100\r\n\r\nabc")
        assert error_of(read_all(client)) == (408, "receive_timeout")
    wait_until(lambda: app.gone == 1)


def test_a_slow_second_request_gets_408(quick: Running) -> None:
    with quick.connect() as client:
        client.sendall(GET)
        assert status_of(read_answer(client)) == 200
        client.sendall(GET[:5])
        assert error_of(read_all(client)) == (408, "receive_timeout")


@pytest.mark.parametrize("before", [b"", GET])
def test_an_idle_connection_is_closed_without_a_word(quick: Running, before: bytes) -> None:
    with quick.connect() as client:
        if before:
            client.sendall(before)
            read_answer(client)
        assert read_all(client) == b""


def test_empty_lines_do_not_keep_a_connection(quick: Running) -> None:
    with quick.connect() as client:
        client.sendall(GET)
        read_answer(client)
        client.sendall(b"\r\n")
        read_all(client)
    wait_until(lambda: quick.figures.connections == 0)


def test_a_long_answer_is_not_a_slow_request(app: Echo) -> None:
    with running(app, replace(QUICK, write_seconds=20)) as server, server.connect() as client:
        client.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n\r\n")
        end = time.monotonic() + 3 * QUICK.receive_seconds
        while time.monotonic() < end:
            assert client.recv(2**16)


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 20_000,
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /" + b"a" * 20_000,
        b"GET / HTTP/1.1\r\n" + b"".join(b"A%d: b\r\n" % i for i in range(101)) + b"\r\n",
        b"\r\n" * 10_000,
    ],
    ids=["header", "endless header", "path", "endless path", "count", "empty lines"],
)
def test_large_headers_get_431(server: Running, app: Echo, request_: bytes) -> None:
    assert error_of(server.send(request_)) == (431, "headers_too_large")
    assert not app.asked
    assert server.figures.refused == {"headers_too_large": 1}


def test_headers_up_to_the_limits_are_read(server: Running) -> None:
    head = b"GET / HTTP/1.1\r\nConnection: close\r\n" + b"".join(b"A%d: b\r\n" % i for i in range(98))
    assert status_of(server.send(head + b"B: " + b"c" * 14_000 + b"\r\n\r\n")) == 200


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (b"1;" + b"e" * 1000, b"e" * 1000),
        (b"1\r\na\r\n", b"1\r\na\r\n" * 1000),
        (b"0\r\n", b"T: " + b"t" * 1000 + b"\r\n"),
    ],
    ids=["extension", "small chunks", "trailers"],
)
def test_a_body_that_only_its_chunks_make_large_is_refused(app: Echo, head: bytes, more: bytes) -> None:
    with running(app, Limits(body_bytes=10_000)) as server, server.connect() as client:
        client.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n" + head)
        with suppress(ConnectionError):
            for _ in range(1000):
                client.sendall(more)
        assert error_of(read_all(client))[0] in (413, 431)
    wait_until(lambda: server.figures.refused.total() == 1)
    assert server.figures.connections == 0
    assert not app.bodies


def test_trailers_do_not_become_headers(server: Running, app: Echo) -> None:
    chunked = POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    assert server.send(chunked + b"1\r\na\r\n0\r\nAuthorization: Bearer x\r\n\r\n").endswith(b"a")
    assert [name for name, _ in app.headers[0]] == [b"host", b"transfer-encoding", b"connection"]


def test_a_client_that_reads_nothing_is_cut_off_and_the_work_stops(quick: Running, app: Echo) -> None:
    with quick.connect(receive_buffer=4096) as client:
        client.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: app.gone == 1)
    assert quick.figures.refused == {"slow_reader": 1}
    wait_until(lambda: quick.figures.connections == 0)


@pytest.mark.parametrize("connection", [b"close", b"keep-alive"])
def test_an_answer_that_nobody_reads_does_not_keep_the_connection(quick: Running, connection: bytes) -> None:
    with quick.connect(receive_buffer=4096) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: " + connection + b"\r\n\r\n")
        wait_until(lambda: quick.figures.refused == {"slow_reader": 1})
        wait_until(lambda: quick.figures.connections == 0)


def test_a_client_that_reads_slowly_but_steadily_gets_everything(app: Echo) -> None:
    with running(app, replace(QUICK, write_seconds=1)) as server, server.connect() as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        size = 0
        while part := client.recv(2**16):
            size += len(part)
            time.sleep(0.02)
    assert size > 2**23
    assert not server.figures.refused


def test_a_client_that_closes_its_half_counts_as_gone(server: Running, app: Echo) -> None:
    for path in (b"/wait", b"/stream"):
        with server.connect() as client:
            client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until(lambda path=path: path.decode() in app.asked)  # type: ignore[misc]
            client.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):
                read_all(client)
    wait_until(lambda: app.gone == 2 and server.figures.connections == 0)


def test_half_closed_connections_without_a_request_are_closed(server: Running) -> None:
    for begun in (b"", GET[:9]):
        with server.connect() as client:
            client.sendall(begun)
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b""
    wait_until(lambda: server.figures.connections == 0)


def test_a_client_that_hangs_up_stops_the_work(server: Running, app: Echo) -> None:
    for path in (b"/wait", b"/stream"):
        with server.connect() as client:
            client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until(lambda path=path: path.decode() in app.asked)  # type: ignore[misc]
    wait_until(lambda: app.gone == 2 and server.figures.connections == 0)


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
    monkeypatch.setattr("runtimes.serve.protocol.MOST_IGNORED", 2**20)
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


def test_too_many_connections_get_503_at_once_and_later_ones_are_served(app: Echo) -> None:
    with running(app, Limits(connections=3)) as server:
        open_ = [server.connect() for _ in range(3)]
        for client in open_:
            client.sendall(GET)
            assert status_of(read_answer(client)) == 200
        with server.connect() as client:
            assert error_of(read_all(client)) == (503, "too_many_connections")
        open_.pop().close()
        wait_until(lambda: server.figures.connections == 2)
        assert status_of(server.send(LAST)) == 200
        for client in open_:
            client.close()


def test_twice_too_many_connections_are_cut(app: Echo) -> None:
    with running(app, Limits(connections=2)) as server:
        open_ = [server.connect() for _ in range(20)]
        wait_until(lambda: server.figures.refused["connections"] == 16)
        assert server.figures.connections <= 4
        for client in open_:
            client.close()
        wait_until(lambda: server.figures.connections == 0)
        assert status_of(server.send(LAST)) == 200


def test_connections_that_come_and_go_leave_nothing_behind(app: Echo) -> None:
    with running(app, Limits(connections=64)) as server:
        before = len(os.listdir("/proc/self/fd"))
        for number in range(1500):
            with server.connect() as client:
                if number % 3:
                    client.sendall((GET, GET[:7])[number % 2])
                if number % 5 == 0:
                    client.shutdown(socket.SHUT_WR)
        wait_until(lambda: server.figures.connections == 0)
        wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before)
        assert status_of(server.send(LAST)) == 200


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


@pytest.mark.slow
def test_many_slow_clients_do_not_stop_another_one(app: Echo) -> None:
    with running(app) as server:
        slow = [server.connect() for _ in range(100)]
        for client in slow:
            client.sendall(GET[:9])
        for _ in range(50):
            assert status_of(server.send(LAST)) == 200
        for client in slow:
            client.close()
