"""A local server that speaks the protocol of OpenAI's chat completions, and that fails in each way on demand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from typing import Any

from benchmarks.evaluation.judge.endpoint import Endpoint
from benchmarks.evaluation.judge.rubric import AXES, MARK
from tests.http_server import LocalServer

KEY, MODEL = "key-8f41c7", "critic"
SLOW = 0.6  # seconds
DRIP = 0.03  # seconds between two bytes of an answer that never ends
SCORES = dict.fromkeys(AXES, 7)


def completion(content: str | None, **more: object) -> bytes:
    """The body of an answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 300, "completion_tokens": 40, "total_tokens": 340}
    body = {"id": "x", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice], "usage": usage}
    return json.dumps(body | more).encode()


class Server(LocalServer):
    """The server.

    Attributes:
        script: What happens to the next requests, in order; after it, every request gets good scores.
        requests: The bodies of the requests that had an answer of any kind.
        no_schema: The status with which it refuses `response_format`; 0 if it knows JSON schemas.
        thinks: Whether its model refuses a temperature and `max_tokens`.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self.no_schema, self.thinks = 0, False

    @property
    def url(self) -> str:
        """The address of its API."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def endpoint(self, **changes: object) -> Endpoint:
        """The endpoint, with short waits."""
        fields: dict[str, Any] = {"key": KEY, "model": MODEL, "timeout": 30.0, "retries": 1}
        return Endpoint(url=self.url, key_env="JUDGE_KEY", **(fields | changes))

    def endings(self) -> list[str]:
        """The endings that were asked about, in order."""
        return [request["messages"][1]["content"].split(f"\n{MARK}\n")[1] for request in self.requests]


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._send(200, json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}).encode())
        else:
            self._error(404, "Not Found")

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            return self._error(404, "Not Found")
        if self.headers["Authorization"] != f"Bearer {KEY}":
            return self._error(401, "Incorrect API key provided")
        if request["model"] != MODEL:
            return self._error(404, f"The model `{request['model']}` does not exist")
        if "response_format" in request and self.server.no_schema:
            return self._error(self.server.no_schema, "response_format: Input should be 'text' or 'json_object'")
        if self.server.thinks and {"temperature", "max_tokens"} & set(request):
            return self._error(400, "Unsupported value: 'temperature'")
        self.server.requests.append(request)
        return self._act(self.server.script.pop(0) if self.server.script else "good")

    def _act(self, action: str) -> None:
        if action == "good":
            self._send(200, completion(json.dumps(SCORES)))
        elif action.startswith("says "):
            self._send(200, completion(action[5:]))
        elif action == "no content":
            self._send(200, completion(None))
        elif action.startswith("body "):
            self._send(200, action[5:].encode())
        elif action == "slow":
            time.sleep(SLOW)
            self._send(200, completion(json.dumps(SCORES)))
        elif action.startswith("drips "):
            with suppress(OSError):  # until the client goes
                if action == "drips a body":
                    self._send(200, b"", length=10**6)
                else:
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
                while True:
                    self.wfile.write(b"x")
                    time.sleep(DRIP)
        elif action == "cut off":
            self._send(200, completion(json.dumps(SCORES))[:40], length=400)
            self.close_connection = True
        elif action == "busy":
            self._error(429, "Rate limit reached", ("Retry-After", "0.05"))
        else:
            self._error(int(action), "It broke\nhere\x1b[31m")

    def _error(self, status: int, message: str, *headers: tuple[str, str]) -> None:
        self._send(status, json.dumps({"error": {"message": message, "type": "x"}}).encode(), *headers)

    def _send(self, status: int, body: bytes, *headers: tuple[str, str], length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving() -> Iterator[Server]:
    """A server until the block ends."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
