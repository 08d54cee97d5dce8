from __future__ import annotations

import json
import logging
import re
import threading
import warnings
from collections.abc import Iterator

import pytest

pytest.importorskip("uvicorn", reason="needs the extra [serve]")

from runtimes.serve.protocol.log import LOG, JsonLines, log_to_stderr, plain_path, tell
from slm.console.errors import UsageError
from tests.runtimes.serve.apps import ENDLESS, KEY, Whole, keyed, serving_whole
from tests.waiting import wait_until


@pytest.fixture
def server() -> Iterator[Whole]:
    """A server with a key."""
    with serving_whole(settings=keyed()) as server:
        server.http.headers["Authorization"] = f"Bearer {KEY}"
        yield server


def requests_in(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """The lines of requests."""
    return [record for record in caplog.records if record.name == LOG.name]


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
    assert fields["event"] == "request"
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
        assert server.figures.streams_failed == {"request_timeout": 1}


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


def fail() -> None:
    raise RuntimeError("broken")


def tell_everything() -> None:
    """Writes a record in each way that there is, and then fails as a command does."""
    LOG.info("told")
    tell("stopping", "stopping: 3 stories", stories=3)
    logging.getLogger("uvicorn.error").warning("not told")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("odd", stacklevel=1)
    thread = threading.Thread(target=fail, name="model")
    thread.start()
    thread.join()
    raise UsageError("wrong")


def test_whatever_is_told_is_a_json_object_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    handlers, hook = logging.getLogger().handlers, threading.excepthook
    with pytest.raises(SystemExit) as ended:
        log_to_stderr(as_json=True)(tell_everything)()
    assert ended.value.code == 2
    out, err = capfd.readouterr()
    told, stopping, odd, thread_ended, failed = map(json.loads, err.splitlines())
    assert (told["level"], told["event"], told["message"]) == ("info", "message", "told")
    assert (stopping["event"], stopping["stories"]) == ("stopping", 3)
    assert (odd["level"], odd["event"]) == ("warning", "message")
    assert "UserWarning: odd" in odd["message"]
    assert thread_ended["message"] == "the thread model ended"
    assert "RuntimeError: broken" in thread_ended["exception"]
    assert (failed["level"], failed["event"], failed["message"]) == ("error", "failed", "wrong")
    assert out == ""
    assert (logging.getLogger().handlers, threading.excepthook) == (handlers, hook)


def test_an_error_that_nothing_foresaw_keeps_its_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, log_to_stderr(as_json=True):
        fail()
    assert ended.value.code == 1
    failed = json.loads(capfd.readouterr().err)
    assert (failed["event"], failed["message"]) == ("failed", "internal error")
    assert "RuntimeError: broken" in failed["exception"]


def test_the_log_as_text_leaves_errors_to_the_command(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError):
        log_to_stderr(as_json=False)(tell_everything)()
    out, err = capfd.readouterr()
    assert out == ""
    assert re.match(r"\d{4}-\d\d-\d\d [0-9:,]+ told\n", err)
    assert "not told" not in err
    assert "RuntimeError: broken" in err
    assert "wrong" not in err
