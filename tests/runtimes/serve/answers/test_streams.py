"""Answers in events: they join to the whole answer, and errors and endings are events too."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs the extra [serve]")

from runtimes.engine.generator import Generator
from runtimes.engine.scoring import TextScore
from runtimes.serve.answers import answer, follower
from tests import bundles
from tests.runtimes.serve.servers import ENDLESS, Json, Served, read_events, serving
from tests.waiting import wait_until

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
ASKED: list[tuple[str, dict[str, Any]]] = [
    (COMPLETIONS, {"prompt": "Once upon a time"}),
    (CHAT, {"messages": [{"role": "user", "content": "Once upon a time"}]}),
]


@pytest.fixture
def small_server(tiny_checkpoint: Path) -> Iterator[Served]:
    """A server with one slot and a queue of one."""
    with serving(bundles.tiny_bundle(tiny_checkpoint), slots=1, queue=1) as served:
        yield served


class Begun(list[str]):
    """The first line of a stream; `rest` reads the others."""

    def __init__(self, lines: Iterator[str]) -> None:
        super().__init__([next(lines)])
        self.rest = lines


@contextmanager
def begun(served: Served, **fields: object) -> Iterator[Begun]:
    """A stream that does not end by itself, after its first line. The client leaves it at the end of the block."""
    with served.http.stream("POST", COMPLETIONS, json={**fields, **ENDLESS, "stream": True}) as response:
        assert response.status_code == 200
        lines = Begun(response.iter_lines())
        yield lines  # httpx closes the stream when nothing refers to its lines


def text_of(event: Json) -> str:
    """The text of the only choice of an event."""
    (choice,) = event["choices"]
    return str(choice["delta"].get("content", "") if "delta" in choice else choice["text"])


@pytest.mark.parametrize(("path", "fields"), ASKED, ids=["completions", "chat"])
def test_the_events_join_to_the_whole_answer(server: Served, path: str, fields: dict[str, Any]) -> None:
    asked = {**fields, "n": 3, "seed": 5, "max_tokens": 40, "return_token_ids": True}
    whole = server.ask(path, **asked)
    events = server.events(path, **asked)
    for choice in whole["choices"]:
        mine = [event for event in events if event["choices"][0]["index"] == choice["index"]]
        expected = choice["message"]["content"] if path == CHAT else choice["text"]
        assert "".join(map(text_of, mine)) == expected
        parts = [event["choices"][0] for event in mine]
        assert [token for part in parts for token in part["token_ids"]] == choice["token_ids"]
        assert [part["finish_reason"] for part in parts[:-1]] == [None] * (len(parts) - 1)
        for key in ("finish_reason", "finish_detail", "stop_reason"):
            assert parts[-1][key] == choice[key]
        if path == CHAT:
            assert ["role" in part["delta"] for part in parts] == [True] + [False] * (len(parts) - 1)
        else:
            assert parts[0]["prompt_token_ids"] == choice["prompt_token_ids"]
    if path == CHAT:
        assert ["prompt_token_ids" in event for event in events] == [True] + [False] * (len(events) - 1)
        assert events[0]["prompt_token_ids"] == whole["prompt_token_ids"]
    assert len({event["id"] for event in events}) == 1
    assert {event["seed"] for event in events} == {5}
    assert not any("usage" in event for event in events)


@pytest.mark.parametrize(("path", "fields"), ASKED, ids=["completions", "chat"])
def test_the_usage_is_an_event_when_asked_for(server: Served, path: str, fields: dict[str, Any]) -> None:
    asked = {**fields, "n": 2, "seed": 5, "max_tokens": 20}
    whole = server.ask(path, **asked)["usage"]
    *events, last = server.events(path, **asked, stream_options={"include_usage": True})
    assert {event["usage"] for event in events} == {None}
    assert last["choices"] == []
    assert {**last["usage"], "prompt_tokens_details": None} == {**whole, "prompt_tokens_details": None}


def test_events_come_together_and_not_one_for_each_token(server: Served) -> None:
    asked: Json = {**ENDLESS, "max_tokens": 400, "seed": 1}
    events = server.events(prompt="Once upon a time", **asked)
    assert len(events) < 200, "the model writes several tokens in 10 ms"


def test_a_character_that_is_split_over_tokens_is_whole_in_an_event(server: Served) -> None:
    """The bias makes the model write the two bytes of one letter in turn."""
    generator = server.generator
    first, second = generator.tokenizer.encode("ß")
    settings: Json = {"logit_bias": {first: 99.0, second: 100.0}, "frequency_penalty": 20.0}
    expected = generator.generate("Once", temperature=0.0, max_tokens=7, **settings)
    assert "ßß" in expected.completion_text
    bias = {str(token): value for token, value in settings["logit_bias"].items()}
    fields: Json = {
        "temperature": 0,
        "max_tokens": 7,
        "frequency_penalty": 20,
        "logit_bias": bias,
        "return_token_ids": True,
    }
    parts = [event["choices"][0] for event in server.events(prompt="Once", **fields)]
    assert "".join(part["text"] for part in parts) == expected.completion_text
    assert any(part["token_ids"][-1:] == [first] for part in parts[:-1]), "an event ends inside a letter"


def test_a_stop_string_is_never_part_of_an_event(server: Served) -> None:
    text = server.generator.generate("Once upon a time", temperature=0.0, max_tokens=30).completion_text
    stop = text[4:12]
    events = server.events(prompt="Once upon a time", temperature=0, max_tokens=30, stop=stop)
    assert "".join(map(text_of, events)) == text[: text.index(stop)]
    assert events[-1]["choices"][0]["stop_reason"] == stop


def test_a_request_that_takes_too_long_ends_with_an_error(tiny_checkpoint: Path) -> None:
    with serving(bundles.tiny_bundle(tiny_checkpoint), seconds=0.3) as served:
        error = served.ask(status=408, prompt="Once", **ENDLESS)["error"]
        assert error["code"] == "request_timeout"
        assert "more than 0.3 s" in error["message"]
        events = served.events(prompt="Once", **ENDLESS)
        assert text_of(events[0])
        assert events[-1] == {"error": error}
        served.wait_until_idle()


@pytest.mark.parametrize(("path", "fields"), ASKED, ids=["completions", "chat"])
def test_a_client_that_leaves_a_stream_stops_the_work(server: Served, path: str, fields: dict[str, Any]) -> None:
    before = server.scheduler.figures().cancelled
    with server.http.stream(
        "POST", path, json={**fields, **ENDLESS, "max_tokens": 10**6, "n": 2, "stream": True}
    ) as got:
        next(got.iter_lines())
    server.wait_until_idle()
    assert server.scheduler.figures().cancelled == before + 2


def test_a_client_that_does_not_wait_for_an_answer_stops_the_work(server: Served) -> None:
    before = server.scheduler.figures().cancelled
    with pytest.raises(Exception, match="timed out"):
        server.http.post(COMPLETIONS, json={"prompt": "Once", **ENDLESS}, timeout=0.3)
    server.wait_until_idle()
    assert server.scheduler.figures().cancelled == before + 1


def test_a_client_that_leaves_the_queue_is_never_served(small_server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "HEARTBEAT_SECONDS", 0.02)
    with begun(small_server, prompt="Once"):
        with begun(small_server, prompt="Once") as waiting:
            assert waiting[0] == ": waiting"
            assert small_server.scheduler.figures().waiting == 1
        wait_until(lambda: small_server.scheduler.figures().waiting == 0)
        assert small_server.scheduler.figures().running == 1
    small_server.wait_until_idle()


def test_a_stream_that_waits_for_the_score_of_its_prompt_says_so(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Json = {"prompt": "Once", "echo": True, "logprobs": 0, "stream": True}
    monkeypatch.setattr(TextScore, "accept", lambda score, logits: None)  # so that the score never ends
    for module, seconds in ((answer, 0.0), (follower, 0.02)):  # while its story is written, and after its end
        with monkeypatch.context() as patch:
            patch.setattr(module, "HEARTBEAT_SECONDS", seconds)
            with server.http.stream("POST", COMPLETIONS, json=asked) as response:
                assert next(response.iter_lines()) == ": waiting"
            server.wait_until_idle()


def test_a_full_queue_is_told_with_the_time_to_wait(small_server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "HEARTBEAT_SECONDS", 0.02)
    with begun(small_server, prompt="Once"), begun(small_server, prompt="Once"):
        for path, fields in ASKED:
            response = small_server.http.post(path, json=fields)
            assert response.status_code == 429
            assert response.json()["error"]["code"] == "queue_full"
            assert int(response.headers["retry-after"]) >= 1
        small_server.ask(status=429, prompt="Once", echo=True, logprobs=1, max_tokens=0)
    small_server.wait_until_idle()


def test_a_request_that_never_fits_is_not_told_to_try_again(small_server: Served) -> None:
    error = small_server.ask(status=400, prompt="Once", n=3)["error"]
    assert error["message"] == "3 stories and scores in one request: ask for 2 or fewer"


def test_stories_are_cut_when_the_server_stops(small_server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "HEARTBEAT_SECONDS", 0.02)
    with begun(small_server, prompt="Once") as running, begun(small_server, prompt="Once") as waiting:
        stopping = threading.Thread(target=small_server.scheduler.drain, args=(0.05,))
        stopping.start()
        events = read_events("\n".join([*running, *running.rest]) + "\n")
        assert text_of(events[0])
        last = events[-1]["choices"][0]
        assert (last["finish_reason"], last["finish_detail"]) == ("length", "interrupted")
        (only,) = read_events("\n".join([*waiting, *waiting.rest]) + "\n")
        assert only["error"]["code"] == "stopping"
        stopping.join()
    assert small_server.ask(status=503, prompt="Once")["error"]["code"] == "stopping"


def test_a_score_is_cut_when_the_server_stops(small_server: Served) -> None:
    with begun(small_server, prompt="Once"), ThreadPoolExecutor(1) as pool:
        asked = pool.submit(small_server.ask, status=503, prompt="One day", echo=True, max_tokens=0, logprobs=0)
        wait_until(lambda: small_server.scheduler.figures().waiting == 1)
        small_server.scheduler.drain(0.05)
        assert asked.result()["error"]["code"] == "stopping"


def test_a_model_that_fails_is_an_error_of_the_server(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtimes.engine.story.log_total", fail)
    error = server.ask(status=500, prompt="Once", logprobs=1)["error"]
    assert (error["type"], error["code"]) == ("server_error", "model_error")
    assert "fp32: its logits are no numbers" in error["message"]
    (event,) = server.events(prompt="Once", logprobs=1)
    assert event == {"error": error}
    assert server.ask(prompt="Once", max_tokens=3)["choices"]


def fail(*_: object) -> float:
    raise FloatingPointError


def test_int8_and_several_models_are_served(tiny_checkpoint: Path) -> None:
    bundle = bundles.tiny_bundle(tiny_checkpoint)
    with serving(bundle, bundle, variant="int8") as served:
        expected: Generator = served.generator
        story = expected.generate("Once upon", temperature=0.0, max_tokens=5)
        for model in ("nano", "nano1"):
            answer = served.ask(prompt="Once upon", temperature=0, max_tokens=5, model=model)
            assert answer["model"] == model
            assert answer["choices"][0]["text"] == story.completion_text
        assert served.ask(prompt="Once", max_tokens=1)["model"] == "nano"
        error = served.ask(status=404, prompt="Once", model="gpt-4o\n")["error"]
        assert (error["code"], error["param"]) == ("model_not_found", "model")
        assert error["message"].endswith("GET /v1/models lists nano, nano1")
