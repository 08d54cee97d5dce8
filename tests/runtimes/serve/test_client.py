"""The official Python client of OpenAI against a real server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="needs the extra [serve]")
pytest.importorskip("openai", reason="needs the package openai")

import openai
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests import bundles
from tests.runtimes.serve.answers.test_streams import begun
from tests.runtimes.serve.servers import ENDLESS, Served, serving

ONCE = "Once upon a time"
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": ONCE}]


@pytest.fixture
def client(server: Served) -> Iterator[OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as opened:
        yield opened


@pytest.fixture
def expected(server: Served) -> str:
    """The greedy story."""
    return server.generator.generate(ONCE, temperature=0.0, max_tokens=20).completion_text


def test_completions(client: OpenAI, expected: str) -> None:
    answer = client.completions.create(model="nano", prompt=ONCE, temperature=0, max_tokens=20)
    assert answer.choices[0].text == expected
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    parts = client.completions.create(
        model="nano", prompt=ONCE, temperature=0, max_tokens=20, stream=True, stream_options={"include_usage": True}
    )
    *events, last = parts
    assert "".join(event.choices[0].text for event in events) == expected
    assert last.usage is not None
    assert last.usage.completion_tokens == answer.usage.completion_tokens


def test_fields_beyond_openai_go_in_the_extra_body(client: OpenAI) -> None:
    answer = client.completions.create(
        model="nano", prompt=ONCE, max_tokens=5, extra_body={"top_k": 1, "return_token_ids": True, "min_tokens": 5}
    )
    assert len(answer.choices[0].model_extra["token_ids"]) == 5  # type: ignore[index]


def test_chat(client: OpenAI, expected: str) -> None:
    answer = client.chat.completions.create(model="nano", messages=MESSAGES, temperature=0, max_completion_tokens=20)
    message = answer.choices[0].message
    assert (message.role, message.content) == ("assistant", expected)
    sent_back = [*MESSAGES, message, MESSAGES[0]]
    assert client.chat.completions.create(model="nano", messages=sent_back, max_tokens=3)  # type: ignore[arg-type]
    stop = expected[10:14]  # this way of reading a stream raises an error if a limit ends the answer
    with client.chat.completions.stream(
        model="nano", messages=MESSAGES, temperature=0, stop=stop, logprobs=True, top_logprobs=2
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == expected[: expected.index(stop)]
    assert final.choices[0].logprobs is not None
    assert final.choices[0].logprobs.content


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["nano"]
    assert client.models.retrieve("nano").owned_by == "slmx"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


def test_the_asynchronous_client(server: Served, expected: str) -> None:
    async def ask(client: AsyncOpenAI) -> str:
        answer = await client.completions.create(model="nano", prompt=ONCE, temperature=0, max_tokens=20)
        return answer.choices[0].text

    async def stream(client: AsyncOpenAI) -> str:
        events = await client.chat.completions.create(
            model="nano", messages=MESSAGES, temperature=0, max_tokens=20, stream=True
        )
        return "".join([event.choices[0].delta.content or "" async for event in events])

    async def all_at_once() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
            return await asyncio.gather(*(ask(client) for _ in range(8)), *(stream(client) for _ in range(8)))

    assert asyncio.run(all_at_once()) == [expected] * 16


def test_errors_have_their_classes_and_fields(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as wrong:
        client.completions.create(model="nano", prompt=ONCE, temperature=101)
    assert (wrong.value.param, wrong.value.code) == ("temperature", "invalid_value")
    assert "from 0 to 100" in wrong.value.message
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert missing.value.code == "model_not_found"


def test_an_error_in_a_stream_is_raised(tiny_checkpoint: Path) -> None:
    with serving(bundles.tiny_bundle(tiny_checkpoint), seconds=0.2) as served:
        client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0)
        events = client.completions.create(model="nano", prompt=ONCE, stream=True, extra_body=ENDLESS)
        with pytest.raises(openai.APIError, match="took more than"):
            list(events)
        with pytest.raises(openai.APIStatusError) as late:
            client.completions.create(model="nano", prompt=ONCE, extra_body=ENDLESS)
        assert (late.value.status_code, late.value.code) == (408, "request_timeout")


def test_a_full_queue_is_tried_again(tiny_checkpoint: Path) -> None:
    """The client waits as long as Retry-After says. Meanwhile the stories that took all room are stopped."""
    with serving(bundles.tiny_bundle(tiny_checkpoint), slots=1, queue=0) as served:
        client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0)
        stop, ready = threading.Event(), threading.Event()

        def occupy() -> None:
            with begun(served, prompt=ONCE):
                ready.set()
                stop.wait(20)

        thread = threading.Thread(target=occupy)
        thread.start()
        ready.wait(20)
        with pytest.raises(openai.RateLimitError) as full:
            client.completions.create(model="nano", prompt=ONCE)
        assert full.value.code == "queue_full"
        timer = threading.Timer(0.1, stop.set)
        timer.start()
        answer = client.with_options(max_retries=3).completions.create(model="nano", prompt=ONCE, max_tokens=2)
        assert answer.choices[0].text
        thread.join()
