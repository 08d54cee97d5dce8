"""An endpoint that fails in each way: what passes is tried again, and the rest is one line that helps."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

pytest.importorskip("openai", reason="needs the package openai")

from benchmarks.evaluation.judge.endpoint import FIRST_PAUSE, Endpoint, Judge, Reply, asked_pause
from benchmarks.evaluation.judge.rubric import messages
from slm.console.errors import SlmxError
from tests.benchmarks.evaluation.judge.endpoints import KEY, SCORES, Server, completion, serving

pytestmark = pytest.mark.slow  # a request is tried again after half a second
QUESTION = messages("Once there was a cat.", " It slept.")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def answer(endpoint: Endpoint) -> Reply:
    with Judge(endpoint, print) as judge:
        return judge.ask(QUESTION)


def failure(endpoint: Endpoint) -> str:
    """The one line that an error is."""
    with pytest.raises(SlmxError) as error:
        answer(endpoint)
    text = str(error.value)
    assert text.startswith(f"{endpoint.url}: ")
    assert text.isprintable()
    assert KEY not in text
    assert text.endswith("the same command goes on")
    return text


def test_a_good_answer_comes_with_its_tokens_and_its_body(server: Server) -> None:
    reply = answer(server.endpoint())
    assert json.loads(reply.content) == SCORES
    assert reply.tokens == (300, 40)
    assert reply.raw.encode() == completion(json.dumps(SCORES))
    (request,) = server.requests
    assert request["response_format"]["type"] == "json_schema"
    assert request["messages"] == QUESTION


@pytest.mark.parametrize("script", [["busy"], ["500"], ["503"], ["cut off"], ["slow"]], ids=lambda script: script[0])
def test_what_can_pass_is_tried_again(server: Server, script: list[str]) -> None:
    server.script = [*script]
    assert json.loads(answer(server.endpoint(timeout=0.3)).content) == SCORES
    assert len(server.requests) == 2


@pytest.mark.parametrize(("asked", "waits"), [("busy", 0.05), ("503", FIRST_PAUSE)])
def test_a_long_pause_is_told(
    server: Server, asked: str, waits: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("benchmarks.evaluation.judge.endpoint.time.sleep", slept.append)
    server.script = [asked]
    answer(server.endpoint())
    assert capsys.readouterr().out == "", "a short one is not"
    monkeypatch.setattr("benchmarks.evaluation.judge.endpoint.TOLD_FROM", 0.01)
    server.script = [asked]
    answer(server.endpoint())
    status = 429 if asked == "busy" else asked
    told = f"{server.url} answers with status {status}: waiting {waits:.0f} seconds, then again (1 of 1)"
    assert capsys.readouterr().out == f"{told}\n"
    assert slept == [waits, waits]


@pytest.mark.parametrize(
    ("header", "pause"),
    [("7", 7.0), ("3600", None), ("-1", None), ("soon", None), ("nan", None), ("", None)],
)
def test_a_server_may_ask_for_a_pause(header: str, pause: float | None) -> None:
    assert asked_pause({"retry-after": header}) == pause


def test_a_pause_may_be_a_date() -> None:
    pause = asked_pause({"retry-after": format_datetime(datetime.now(timezone.utc) + timedelta(seconds=30))})
    assert pause is not None
    assert 25 < pause <= 30


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("busy", "takes no more requests now: Rate limit reached; wait"),
        ("500", r"status 500, 2 times: It broke here\?\[31m"),
        ("cut off", "cannot be reached \\(.*\\); start the server"),
        ("slow", "no answer within 0.3 seconds, 2 times"),
        ("drips a body", "no answer within 0.3 seconds, 2 times"),
        ("drips headers", "no answer within 0.3 seconds, 2 times"),
        ("body <html>welcome</html>", "not a chat completion: .*'<html>welcome</html>'; check --judge-url"),
        ('body {"choices": []}', "not a chat completion: choices is not a list with an answer"),
        ('body {"choices": [{"message": {"content": 7}}]}', r"choices\[0\].message.content is not a text"),
        ('body {"error": {"message": "no credit"}}', "choices is missing; it begins with .*no credit"),
        ("body [1", "not a chat completion"),
    ],
)
def test_what_does_not_pass_is_one_line(server: Server, action: str, said: str) -> None:
    server.script = [action] * 4
    timeout = 0.3 if "0.3 seconds" in said else 30  # a busy machine answers late
    assert re.search(said, failure(server.endpoint(timeout=timeout)))
    assert len(server.requests) == 2


def test_a_status_that_does_not_pass_is_not_asked_for_again(server: Server) -> None:
    server.script = ["402"] * 2
    assert re.search(r"status 402: It broke here", failure(server.endpoint()))
    assert len(server.requests) == 1


def test_a_server_that_is_down() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    assert "cannot be reached" in failure(Endpoint(url, "critic", None, "K", retries=0))


def test_a_wrong_key_and_no_key_name_the_variable(server: Server) -> None:
    assert "refuses the key in JUDGE_KEY: Incorrect API key" in failure(server.endpoint(key="wrong"))
    assert "refuses a request without a key; set JUDGE_KEY" in failure(server.endpoint(key=None))


def test_a_model_that_does_not_exist_names_those_that_do(server: Server) -> None:
    text = failure(server.endpoint(model="gpt-99"))
    assert "has no model gpt-99" in text
    assert "it has critic" in text


def test_a_wrong_address(server: Server) -> None:
    endpoint = server.endpoint()
    wrong = Endpoint(endpoint.url.removesuffix("/v1"), endpoint.model, KEY, "JUDGE_KEY", retries=0)
    assert "check --judge-url, which often ends with /v1" in failure(wrong)


@pytest.mark.parametrize("status", [400, 422, 500])  # the server of llama-cpp-python answers 500
def test_an_endpoint_without_schemas_is_asked_without_from_then_on(server: Server, status: int) -> None:
    server.no_schema = status
    with Judge(server.endpoint(), print) as judge:
        judge.ask(QUESTION)
        judge.ask(QUESTION)
    assert ["response_format" in request for request in server.requests] == [False, False]
    assert all(request["temperature"] == 0 for request in server.requests)


def test_a_model_that_thinks_is_asked_without_a_temperature(server: Server) -> None:
    server.thinks = True
    assert json.loads(answer(server.endpoint()).content) == SCORES
    assert "response_format" in server.requests[0]
    assert "max_completion_tokens" in server.requests[0]


def test_an_endpoint_that_refuses_every_form_says_why(server: Server) -> None:
    server.script = ["400"] * 2
    server.no_schema = 422
    said = failure(server.endpoint())
    assert "refuses every form of the request: response_format: Input should be 'text'" in said
    assert "or: It broke here?[31m;" in said
    assert len(server.requests) == 2


def test_an_answer_without_content_or_counts_is_empty(server: Server) -> None:
    server.script = ["no content", 'body {"choices": [{"message": {}}], "usage": null}']
    assert answer(server.endpoint()).content == ""
    assert answer(server.endpoint()) == Reply('{"choices": [{"message": {}}], "usage": null}', "", (0, 0))


def test_a_nonsensical_usage_counts_as_no_tokens(server: Server) -> None:
    message = '"choices": [{"message": {"content": "x"}}]'
    server.script = [f'body {{{message}, "usage": {{"prompt_tokens": "many", "completion_tokens": -1}}}}']
    reply = answer(server.endpoint())
    assert (reply.content, reply.tokens) == ("x", (0, 0))
