from __future__ import annotations

import json
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

pytest.importorskip("uvicorn", reason="needs the extra [serve]")

from tests.runtimes.serve.apps import ENDLESS, code_of, serving_whole
from tests.runtimes.serve.processes import Process, slmx_serve
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

SHORT = {"prompt": "Once", "max_tokens": 5}


class Stream:
    """A stream that is read in a thread of its own.

    Args:
        url: Where the server is.
        fields: What to ask for.
    """

    def __init__(self, url: str, **fields: object) -> None:
        self.lines: list[str] = []
        self._asked = {**fields, "stream": True}
        self._url = url
        self.thread = threading.Thread(target=self._read)
        self.thread.start()
        wait_until(lambda: bool(self.lines))

    def _read(self) -> None:
        with (
            suppress(httpx.RemoteProtocolError),  # the server was killed
            httpx.stream("POST", f"{self._url}/v1/completions", json=self._asked, timeout=60) as answer,
        ):
            for line in answer.iter_lines():
                if line:
                    self.lines.append(line)

    def last_reason(self) -> str | None:
        """Waits for the end; returns why the story ended."""
        self.thread.join()
        assert self.lines[-1] == "data: [DONE]"
        event = json.loads(self.lines[-2].removeprefix("data: "))
        reason: str | None = event["choices"][0]["finish_reason"]
        return reason


def refuses(url: str) -> bool:
    """Whether nothing listens there."""
    port = int(url.rpartition(":")[2])
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_an_idle_server_with_0(tmp_path: Path, number: int) -> None:
    with slmx_serve(tmp_path, "nano") as server:
        assert httpx.post(f"{server.url}/v1/completions", json=SHORT).status_code == 200
        assert server.end(number) == 0
        assert "Traceback" not in server.told()


def test_a_running_stream_is_cut_after_the_grace_and_ends_well(tmp_path: Path) -> None:
    with slmx_serve(tmp_path, "nano", "--grace", "0.5", "--request-seconds", "600") as server:
        stream = Stream(server.url, **ENDLESS)
        assert server.end() == 0
        assert stream.last_reason() == "length"
        assert "stopping: 1 story can end within 0.5 s" in server.told()
        assert "Traceback" not in server.told()


def test_a_story_that_ends_within_the_grace_is_whole(tmp_path: Path) -> None:
    with slmx_serve(tmp_path, "nano", "--grace", "60") as server:
        fields = {**ENDLESS, "max_tokens": 1500}
        stream = Stream(server.url, **fields, stream_options={"include_usage": True})
        assert server.end() == 0
        stream.thread.join()
        usage = json.loads(stream.lines[-2].removeprefix("data: "))["usage"]
        assert usage["completion_tokens"] == 1500


def test_while_it_stops_new_requests_get_503_and_new_connections_none(tmp_path: Path) -> None:
    with (
        slmx_serve(tmp_path, "nano", "--grace", "60") as server,
        httpx.Client(base_url=server.url) as old,
        httpx.Client(base_url=server.url) as other,  # a refusal before the body has arrived closes its connection
    ):
        stream = Stream(server.url, **{**ENDLESS, "max_tokens": 60_000})
        for client in (old, other):
            assert client.get("/v1/models").status_code == 200, "its connection stays open for the requests below"
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses(server.url))
        response = old.post("/v1/completions", json=SHORT)
        assert code_of(response) == (503, "stopping")
        assert int(response.headers["retry-after"]) > 0
        health = other.get("/healthz")
        assert (health.status_code, health.json()) == (503, {"status": "stopping"})
        assert other.get("/metrics").status_code == 200
        assert stream.thread.is_alive()
        check_second_signal(server)
        stream.thread.join()


def check_second_signal(server: Process) -> None:
    """A second signal ends the process at once, long before the grace is over."""
    before = time.monotonic()
    assert server.end() == 128 + signal.SIGTERM
    assert time.monotonic() - before < 10


def test_a_client_that_does_not_read_cannot_delay_the_end(tmp_path: Path) -> None:
    with slmx_serve(tmp_path, "nano", "--grace", "0") as server:
        port = int(server.url.rpartition(":")[2])
        body = json.dumps({**ENDLESS, "stream": True}).encode()
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port))
            client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            running = 'slmx_stories_running{model="nano"} 1\n'
            wait_until(lambda: running in httpx.get(f"{server.url}/metrics").text)
            assert server.end() == 0


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with slmx_serve(tmp_path, "nano") as server:
            server.process.send_signal(signal.SIGHUP)
            assert httpx.post(f"{server.url}/v1/completions", json=SHORT).status_code == 200
            assert server.end() == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_server_in_a_thread_ends_without_signals() -> None:
    with serving_whole() as server:
        assert server.ask().status_code == 200
    assert not server.scheduler.alive
