"""Clients that send or read slowly, too much, or not at all."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from dataclasses import replace

import pytest

pytest.importorskip("uvicorn", reason="needs the extra [serve]")

from runtimes.serve.protocol.limits import Limits
from tests.runtimes.serve.protocol.requests import GET, LAST, POST, QUICK
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


@pytest.mark.heavy
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
        wait_until(lambda: server.figures.connections <= 4)  # a refused one is counted before it is closed
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
                    with suppress(OSError):  # over the limit, the server has closed it already
                        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: server.figures.connections == 0)
        wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before)
        assert status_of(server.send(LAST)) == 200


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
