"""`POST /v1/completions` against a real server, in one piece."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs the extra [serve]")

from tests.runtimes.serve.servers import Served

PROMPTS = ["Once upon a time", "One day, Lily", ""]
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 30}


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_text_is_that_of_the_generator(server: Served, prompt: str) -> None:
    expected = server.generator.generate(prompt, temperature=0.0, max_tokens=30)
    ids = server.generator.tokenize(prompt)
    for given in (prompt, [prompt], [ids], ids)[: 4 if ids else 2]:
        answer = server.ask(prompt=given, **GREEDY)
        (choice,) = answer["choices"]
        assert choice["text"] == expected.completion_text
        assert choice["finish_reason"] == expected.stats.finish_reason
        assert choice["finish_detail"] == expected.stats.stop
        assert answer["usage"]["completion_tokens"] == expected.stats.tokens
        assert answer["usage"]["prompt_tokens"] == expected.stats.prompt_tokens
    assert (answer["object"], answer["model"]) == ("text_completion", "nano")
    assert answer["id"].startswith("cmpl-")
    assert answer["system_fingerprint"] == f"slmx-{server.generator.bundle.manifest_sha256[:16]}"


def test_story_j_of_prompt_i_draws_with_its_own_seed(server: Served) -> None:
    answer = server.ask(prompt=PROMPTS, n=3, seed=100, max_tokens=20, logprobs=0)
    texts = [choice["text"] for choice in answer["choices"]]
    assert [choice["index"] for choice in answer["choices"]] == list(range(9))
    expected = [
        server.generator.generate(prompt, seed=100 + 3 * i + j, max_tokens=20)
        for i, prompt in enumerate(PROMPTS)
        for j in range(3)
    ]
    assert texts == [story.completion_text for story in expected]
    usage = answer["usage"]
    assert usage["completion_tokens"] == sum(story.stats.tokens for story in expected)
    assert usage["prompt_tokens"] == sum(story.stats.prompt_tokens for story in expected[::3]), (
        "each prompt counts once"
    )
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 0 <= usage["prompt_tokens_details"]["cached_tokens"] <= usage["prompt_tokens"]


def test_the_seed_that_was_drawn_gives_the_story_again(server: Served) -> None:
    first = server.ask(prompt="Once", n=2)
    assert first["seed"] != server.ask(prompt="Once", n=2)["seed"]
    again = server.ask(prompt="Once", n=2, seed=first["seed"])
    assert [choice["text"] for choice in again["choices"]] == [choice["text"] for choice in first["choices"]]


SETTINGS: list[dict[str, Any]] = [
    {"top_k": 5, "top_p": 0.8, "min_p": 0.05, "temperature": 1.2},
    {"repetition_penalty": 1.5, "presence_penalty": 1.0, "frequency_penalty": 0.5, "temperature": 0.0},
    {"no_repeat_ngram": 2, "min_tokens": 25, "temperature": 0.0},
    {"ban_words": ["the", "a"]},
    {"logit_bias": {70: 30.0}, "max_tokens": 5},
    {"stop": ["e", ". "]},
    {"stop_token_ids": [12, 13, 220]},
    {"ignore_eos": True, "max_tokens": 50},
    {"on_full": "slide", "ignore_eos": True, "max_tokens": 100},
    {"temperature": 0.0, "top_k": 1},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: " ".join(settings))
def test_every_setting_means_the_same_as_in_the_generator(server: Served, settings: dict[str, Any]) -> None:
    settings = {"seed": 7, "max_tokens": 30, **settings}
    expected = server.generator.generate("Once upon a time", **settings)
    bias = {str(token): value for token, value in settings.get("logit_bias", {}).items()}
    answer = server.ask(prompt="Once upon a time", **{**settings, "logit_bias": bias, "return_token_ids": True})
    (choice,) = answer["choices"]
    assert (choice["text"], choice["token_ids"]) == (expected.completion_text, expected.ids)
    assert (choice["finish_detail"], choice["stop_reason"]) == (expected.stats.stop, expected.stats.stop_string)


def test_a_stop_string_over_several_tokens_ends_the_story_before_it(server: Served) -> None:
    text = server.ask(prompt="Once upon a time", **GREEDY)["choices"][0]["text"]
    stop = text[5:11]
    (choice,) = server.ask(prompt="Once upon a time", **GREEDY, stop=["never", stop])["choices"]
    assert choice["text"] == text[: text.index(stop)]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop)


def test_a_story_ends_at_the_limit_or_when_the_context_is_full(server: Served) -> None:
    (choice,) = server.ask(prompt="Once", max_tokens=1)["choices"]
    assert (choice["finish_reason"], choice["finish_detail"]) == ("length", "max tokens")
    (choice,) = server.ask(prompt="Once", ignore_eos=True)["choices"]
    assert (choice["finish_reason"], choice["finish_detail"]) == ("length", "context full")
    (choice,) = server.ask(prompt="Once", no_repeat_ngram=1, max_tokens=500, on_full="slide")["choices"]
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize("prompt", ["Once upon", "", "Zoë \N{SLIGHTLY SMILING FACE} "])
def test_echo_puts_the_prompt_before_the_text(server: Served, prompt: str) -> None:
    plain = server.ask(prompt=prompt, **GREEDY)["choices"][0]["text"]
    assert server.ask(prompt=prompt, **GREEDY, echo=True)["choices"][0]["text"] == prompt + plain
    if ids := server.generator.tokenize(prompt):
        assert server.ask(prompt=ids, **GREEDY, echo=True)["choices"][0]["text"] == prompt + plain


def test_token_ids_are_returned_when_asked_for(server: Served) -> None:
    expected = server.generator.generate("Once", temperature=0.0, max_tokens=30)
    (choice,) = server.ask(prompt="Once", **GREEDY, return_token_ids=True)["choices"]
    assert choice["token_ids"] == expected.ids
    assert choice["prompt_token_ids"] == server.generator.encode("Once")
    assert "token_ids" not in server.ask(prompt="Once", **GREEDY)["choices"][0]


def test_a_repeated_prompt_is_read_from_the_cache(server: Served) -> None:
    prompt = "One day, Tom and Anna went to the big park"
    server.ask(prompt=prompt, max_tokens=1)
    usage = server.ask(prompt=prompt, max_tokens=1)["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"]


def test_many_prompts_at_once_are_encoded_outside_the_event_loop(server: Served) -> None:
    answer = server.ask(prompt=["Once upon a time"] * 30, n=2, temperature=0, max_tokens=3)
    assert {choice["text"] for choice in answer["choices"]} == {answer["choices"][0]["text"]}
    assert len(answer["choices"]) == 60


@pytest.mark.parametrize(
    ("fields", "param", "code", "message"),
    [
        (
            {"prompt": "x", "temperature": -1},
            "temperature",
            "invalid_value",
            "temperature must be a number from 0 to 100",
        ),
        ({"prompt": "x", "temprature": 1}, "temprature", "unknown_field", "did you mean temperature?"),
        ({}, "prompt", "missing_required_parameter", "prompt is missing"),
        ({"prompt": "x", "suffix": "y"}, "suffix", "unsupported_value", "suffix: "),
        ({"prompt": "x" * 5000}, "prompt", "context_length_exceeded", "set on_full to"),
        ({"prompt": "fox " * 60}, "prompt", "context_length_exceeded", "the context holds 64 tokens"),
        ({"prompt": ["x", [5]]}, "prompt[1]", "invalid_value", "prompt[1] must be a text, not a list of 1"),
        ({"prompt": ["x", "fox " * 60]}, "prompt[1]", "context_length_exceeded", "prompt[1]: the prompt is "),
        ({"prompt": [400]}, "prompt", "invalid_value", "no token has the id 400; ids go from 0 to 399"),
        ({"prompt": [[1], [400]]}, "prompt[1]", "invalid_value", "prompt[1]: no token has the id 400"),
        ({"prompt": "x", "logit_bias": {"400": 1}}, "logit_bias", "invalid_value", "no token has the id 400"),
        ({"prompt": "x", "stop_token_ids": [400]}, "stop_token_ids", "invalid_value", "no token has the id 400"),
        (
            {"prompt": ["x"] * 40, "n": 2},
            "n",
            "invalid_value",
            "80 stories and scores in one request: ask for 60",
        ),
    ],
)
def test_a_wrong_request_is_refused_in_the_shape_of_openai(
    server: Served, fields: dict[str, Any], param: str, code: str, message: str
) -> None:
    error = server.ask(status=400, **fields)["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert message in error["message"]
    assert "--" not in error["message"], "options of the command line are no advice here"
    assert set(error) == {"message", "type", "param", "code"}


def test_a_prompt_longer_than_the_context_slides(server: Served) -> None:
    expected = server.generator.generate("fox " * 60, temperature=0.0, max_tokens=30, on_full="slide")
    answer = server.ask(prompt="fox " * 60, **GREEDY, on_full="slide")
    assert answer["choices"][0]["text"] == expected.completion_text
