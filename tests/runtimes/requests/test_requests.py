"""Requests are read into settings, or refused with one line that names the field, its range and the value."""

from __future__ import annotations

import json

import pytest

from runtimes.requests.chat import ChatRequest, read_chat
from runtimes.requests.completion import CompletionRequest, read_completion
from runtimes.requests.errors import RequestError
from runtimes.requests.fields import IGNORED, IGNORED_IN_CHAT, Bounds, chat_table, completion_table
from runtimes.requests.kinds import Ids, Text, Texts
from runtimes.requests.messages import Message
from runtimes.requests.story_request import shared_parts
from runtimes.types import GenerationConfig, SamplingParams, Settings

BOUNDS = Bounds()
MESSAGES = [{"role": "user", "content": "Once"}]


def completion(**fields: object) -> CompletionRequest:
    return read_completion({"prompt": "Once", **fields}, BOUNDS)


def chat(**fields: object) -> ChatRequest:
    return read_chat({"messages": MESSAGES, **fields}, BOUNDS)


def refused(**fields: object) -> RequestError:
    with pytest.raises(RequestError) as error:
        completion(**fields)
    return error.value


def refused_chat(**fields: object) -> RequestError:
    with pytest.raises(RequestError) as error:
        chat(**fields)
    return error.value


def test_a_prompt_alone_has_the_defaults_of_slmx_generate() -> None:
    request = completion()
    assert request.prompts == ("Once",)
    assert (request.config, request.sampling) == (GenerationConfig(), SamplingParams())
    assert (request.n, request.model, request.echo, request.score_only, request.stream) == (
        1,
        None,
        False,
        False,
        False,
    )


def test_every_setting_reaches_the_story() -> None:
    request = completion(
        **{"model": "nano", "max_tokens": 7, "temperature": 0.5, "top_p": 0.5, "n": 3, "stream": True, "user": "me"},
        **{"stream_options": {"include_usage": True}, "stop": ["x", "y"], "seed": 5, "logprobs": 2, "echo": True},
        **{"presence_penalty": 1, "frequency_penalty": -1, "logit_bias": {"42": -5, "7": 1.5}, "best_of": 1},
        **{"top_k": 9, "min_p": 0.1, "repetition_penalty": 1.1, "min_tokens": 2, "stop_token_ids": [3, 4]},
        **{"ignore_eos": True, "return_token_ids": True, "no_repeat_ngram": 3, "ban_words": "wolf"},
    )
    config, sampling, rules = request.config, request.sampling, request.sampling.rules
    assert (request.model, request.n, request.stream, request.include_usage) == ("nano", 3, True, True)
    assert (request.echo, request.return_token_ids) == (True, True)
    assert (config.max_tokens, config.stop, config.stop_token_ids) == (7, ("x", "y"), (3, 4))
    assert (config.logprobs, config.top_logprobs, config.ignore_eos) == (True, 2, True)
    assert completion(on_full="slide").config.on_full == "slide"
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p, sampling.seed) == (
        0.5,
        9,
        0.5,
        0.1,
        5,
    )
    assert (rules.presence_penalty, rules.frequency_penalty, rules.repetition_penalty) == (1, -1, 1.1)
    assert (rules.no_repeat_ngram, rules.min_tokens, rules.ban_words) == (3, 2, ("wolf",))
    assert rules.logit_bias == {42: -5, 7: 1.5}


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", ("",)),
        (["a", "b"], ("a", "b")),
        ([1, 2, 3], ((1, 2, 3),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
        ([5.0], ((5,),)),
    ],
)
def test_a_prompt_has_four_forms(prompt: object, expected: object) -> None:
    assert completion(prompt=prompt).prompts == expected


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (None, "prompt is missing"),
        (3, "prompt must be a text, a list of texts, a list of ids, or a list of such lists, not 3"),
        ([], "prompt is an empty list: it must hold at least one prompt"),
        ([[]], "prompt[0] must be a list of at least 1 ids, not a list of 0"),
        (["a", 1], "prompt[1] must be a text, not 1"),
        ([1, "a"], "prompt[1] must be a whole number from 0 to 2147483647 (the id of a token), not 'a'"),
        ([1, True], "prompt[1] must be a whole number from 0 to 2147483647 (the id of a token), not true"),
        ([-1], "prompt[0] must be a whole number from 0 to 2147483647 (the id of a token), not -1"),
        (["a"] * 65, "prompt must be at most 64 prompts, not a list of 65"),
        ("a\0b", "prompt must not hold the NUL character (U+0000)"),
        ("\ud800", "prompt must be valid Unicode: it holds half of a surrogate pair"),
        (["a", "\ud800"], "prompt[1] must be valid Unicode: it holds half of a surrogate pair"),
    ],
)
def test_other_prompts_are_refused(prompt: object, message: str) -> None:
    error = refused(prompt=prompt)
    assert str(error).startswith(message)
    assert error.param is not None
    assert error.param.startswith("prompt")


HUGE = 10**400
# Every field with a range: the values at its ends, values outside, and what the message says.
RANGES: list[tuple[str, list[object], list[object], str]] = [
    ("max_tokens", [1, 2**31 - 1, 3.0], [-1, 2**31, 1.5, True, "3", HUGE], "a whole number from 0 to 2147483647"),
    ("temperature", [0, 0.0, 100, 1e-300], [-1e-9, 100.1, float("nan"), float("inf"), HUGE, "1", True],
     "a number from 0 to 100 (0 takes the most likely token)"),
    ("top_p", [1e-9, 1], [0, 0.0, 1.01, -1, False], "a number above 0 and up to 1 (1 is off)"),
    ("min_p", [0, 1], [-0.1, 1.1, []], "a number from 0 to 1 (0 is off)"),
    ("top_k", [-1, 0, 2**31 - 1], [-2, 2**31, 0.5], "a whole number from -1 to 2147483647 (0 and -1 are off)"),
    ("n", [1, 16], [0, 17, {}], "a whole number from 1 to 16"),
    ("seed", [0, 2**63 - 1], [-1, 2**63, "x"], "a whole number from 0 to 9223372036854775807"),
    ("logprobs", [0, 20], [-1, 21, True], "a whole number from 0 to 20"),
    ("min_tokens", [0, 10**6], [-1, 10**6 + 1], "a whole number from 0 to 1000000"),
    ("presence_penalty", [-100, 100], [-100.5, 101, "0"], "a number from -100 to 100 (0 is off)"),
    ("frequency_penalty", [-100, 100], [-100.5, 101], "a number from -100 to 100 (0 is off)"),
    ("repetition_penalty", [0.01, 100], [0, 0.009, 101], "a number from 0.01 to 100 (1 is off)"),
    ("no_repeat_ngram", [0, 1000], [-1, 1001], "a whole number from 0 to 1000 (0 is off)"),
    ("stream", [True, False], [1, "true"], "true or false"),
    ("echo", [True, False], [0], "true or false"),
    ("ignore_eos", [True, False], [0], "true or false"),
    ("return_token_ids", [True, False], [0], "true or false"),
    ("on_full", ["stop", "slide"], ["go on", 1], "one of stop, slide"),
    ("stop", ["x", [], ["x"] * 16, "x" * 500], [["x"] * 17, 3], "a text or a list of at most 16 texts"),
    ("stop", [], ["", "x" * 501], "a text of 1 to 500 characters"),
    ("stop_token_ids", [[], [0] * 64], [[0] * 65, "3", 3], "a list of 0 to 64 ids"),
    ("logit_bias", [{}, {"0": 100, "999999999": -100}], [[], "x", {str(i): 0 for i in range(1001)}],
     "an object of at most 1,000 ids of tokens and their numbers"),
    ("ban_words", ["wolf", ["wolf", "don't"]], [3, ["a"] * 101], "a text or a list of at most 100 texts"),
    ("model", ["nano"], [3, "x" * 201], "a text"),
    ("user", ["me"], [3, "x" * 201], "a text"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "good", "bad", "what"), RANGES, ids=[row[0] for row in RANGES])
def test_every_field_has_its_range(name: str, good: list[object], bad: list[object], what: str) -> None:
    for value in [*good, None]:
        completion(**{name: value})
        if name not in ("echo", "logprobs"):
            chat(**{name: value})
    for value in bad:
        for error in (refused(**{name: value}), *([refused_chat(**{name: value})] if name in NAMED_ALIKE else [])):
            assert str(error).startswith(f"{name} must be {what}")
            assert "not " in str(error)
            assert error.param == name
            assert error.status == 400


NAMED_ALIKE = {"temperature", "top_p", "n", "stop", "logit_bias", "stream", "seed"}


def test_every_field_with_a_range_is_in_the_list_of_ranges() -> None:
    others = {"prompt", "stream_options", "best_of", "suffix", *IGNORED}
    assert {row[0] for row in RANGES} == {field.name for field in completion_table(BOUNDS).fields} - others


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"max_token": 3}, "max_token", "unknown field 'max_token': did you mean max_tokens?"),
        ({"Temperature": 3}, "Temperature", "unknown field 'Temperature': did you mean temperature?"),
        ({"xyzzy": 3}, "xyzzy", "unknown field 'xyzzy': leave it out"),
        ({"\ud800\x1b": 3}, None, "unknown field '\\ud800\\x1b': leave it out"),
        ({"suffix": "end"}, "suffix", "suffix: a story is written from its beginning only"),
        ({"best_of": 2}, "best_of", "best_of: only 1 is possible"),
        ({"best_of": True}, "best_of", "best_of: only 1 is possible"),
        ({"stream_options": {}}, "stream_options", "stream_options is for streams only"),
        ({"stream_options": [], "stream": True}, "stream_options", "stream_options must be a JSON object"),
        (
            {"stream_options": {"include_usages": True}, "stream": True},
            "stream_options.include_usages",
            "unknown field 'stream_options.include_usages': did you mean stream_options.include_usage?",
        ),
        ({"max_tokens": 0}, "max_tokens", "max_tokens 0 writes nothing: set echo to true to score the prompt"),
        ({"max_tokens": 0, "echo": True, "n": 2}, "n", "n must be 1 if max_tokens is 0"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens", "min_tokens must be at most max_tokens, 4, not 5"),
        ({"echo": True, "logprobs": 1, "on_full": "slide"}, "on_full", "echo with logprobs scores a whole prompt"),
        ({"ignore_eos": True, "on_full": "slide"}, "max_tokens", "with ignore_eos and on_full"),
        ({"ban_words": ["two words"]}, "ban_words", "ban_words: a banned word holds only letters"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "logit_bias must have the ids of tokens as its keys"),
        ({"logit_bias": {"\u0663": 1}}, "logit_bias", "logit_bias must have the ids of tokens as its keys"),
        ({"logit_bias": {"05": 1}}, "logit_bias", "logit_bias must have the ids of tokens as its keys"),
        ({"logit_bias": {"3": 101}}, "logit_bias[3]", "logit_bias[3] must be a number from -100 to 100, not 101"),
        ({"stop": ["a", "b\0"]}, "stop[1]", "stop[1] must not hold the NUL character"),
        ({"temperature": HUGE}, "temperature", "temperature must be a number from 0 to 100 (0 takes the most likely "
         "token), not a number of 1,329 bits"),
        ({"stop": "x" * 900}, "stop", f"stop must be a text of 1 to 500 characters, not '{'x' * 60}'... (900 "),
    ],
)  # fmt: skip
def test_a_wrong_field_is_refused_by_name(fields: dict[str, object], param: str | None, message: str) -> None:
    error = refused(**fields)
    assert str(error).startswith(message)
    assert error.param == param


def test_fields_of_openai_that_change_nothing_are_ignored() -> None:
    for value in (True, "x", {"a": [1]}, None):
        assert completion(**dict.fromkeys(IGNORED, value)) == completion()
        assert chat(**dict.fromkeys(IGNORED | IGNORED_IN_CHAT, value)) == chat()


def test_a_setting_that_is_new_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}

    def take(**settings: object) -> tuple[GenerationConfig, SamplingParams]:
        given.update(settings)
        return GenerationConfig(), SamplingParams()

    monkeypatch.setitem(Settings.__annotations__, "mirostat", "int")
    monkeypatch.setattr("runtimes.requests.story_request.read_settings", take)
    shared_parts({"mirostat": 2, "model": "nano"}, 5, None)
    assert given == {"mirostat": 2, "max_tokens": 5, "logprobs": False, "top_logprobs": 0}


def test_a_text_is_scored_with_no_tokens() -> None:
    request = completion(max_tokens=0, echo=True, logprobs=0)
    assert request.score_only
    assert request.config == GenerationConfig(logprobs=True)


def test_bounds_narrow_the_ranges() -> None:
    bounds = Bounds(prompts=2, n=1, logprobs=1, stop=1, max_tokens=10)
    assert read_completion({"prompt": ["a", "b"]}, bounds).config.max_tokens == 10
    assert read_chat({"messages": MESSAGES}, bounds).config.max_tokens == 10
    for fields in ({"prompt": ["a"] * 3}, {"n": 2}, {"logprobs": 2}, {"stop": ["a", "b"]}, {"max_tokens": 11}):
        with pytest.raises(RequestError):
            read_completion({"prompt": "a", **fields}, bounds)


@pytest.mark.parametrize(("kind", "bad"), [(Texts(0, Text()), ["x", ["x"]]), (Ids(0), [[1]])], ids=["texts", "ids"])
def test_a_list_of_at_most_nothing_has_no_other_form(kind: Texts | Ids, bad: list[object]) -> None:
    """Such a list is `stop` of a server with --max-stop 0."""
    assert kind.read("name", []) == ()
    assert "anyOf" not in kind.schema()
    assert (kind.schema()["type"], kind.schema()["maxItems"]) == ("array", 0)
    for value in bad:
        with pytest.raises(RequestError, match=r"^name must be a"):
            kind.read("name", value)


def test_messages_are_read() -> None:
    parts = [{"type": "text", "text": "Once "}, {"type": "text", "text": "upon"}]
    answer: dict[str, object] = {
        "role": "assistant",
        "content": " a time",
        "refusal": None,
        "tool_calls": [],
        "annotations": [],
    }
    request = chat(
        messages=[
            {"role": "developer", "content": "Be kind."},
            {"role": "system", "content": ""},
            {"role": "user", "content": parts, "name": "Ann"},
            answer,
        ]
    )
    assert request.messages == (
        *(Message("system", "Be kind."), Message("system", "")),
        *(Message("user", "Once upon"), Message("assistant", " a time")),
    )


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"messages": None}, "messages", "messages is missing"),
        ({"messages": []}, "messages", "messages must be a list of 1 to 1,000 messages, not a list of 0"),
        (
            {"messages": MESSAGES * 1001},
            "messages",
            "messages must be a list of 1 to 1,000 messages, not a list of 1,001",
        ),
        ({"messages": ["x"]}, "messages[0]", "messages[0] must be a JSON object, not 'x'"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "messages[0].content is missing"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "messages[0].role is missing"),
        (
            {"messages": [{"role": "bot", "content": "x"}]},
            "messages[0].role",
            "messages[0].role must be one of system, developer, user, assistant, not 'bot'",
        ),
        (
            {"messages": [{"role": "tool", "content": "x", "tool_call_id": "y"}]},
            "messages[0].role",
            "messages[0].role: these models call no tools; leave out its messages",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
            "messages[0].content[0].type: 'image_url' is not possible; these models read text only",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]},
            "messages[0].content[0].text",
            "messages[0].content[0].text must be a text, not 3",
        ),
        (
            {"messages": [{"role": "user", "content": "x", "contents": "y"}]},
            "messages[0].contents",
            "unknown field 'messages[0].contents': did you mean messages[0].content?",
        ),
        ({"tools": [{}]}, "tools", "tools: these models call no tools"),
        ({"tool_choice": "required"}, "tool_choice", "tool_choice: these models call no tools"),
        ({"functions": [{}]}, "functions", "functions: these models call no tools"),
        ({"response_format": {"type": "json_object"}}, "response_format", 'response_format: only {"type": "text"}'),
        ({"modalities": ["text", "audio"]}, "modalities", 'modalities: only ["text"]'),
        ({"audio": {}}, "audio", "audio: these models write text only"),
        ({"moderation": {}}, "moderation", "moderation: slmx moderates no text"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens must be a whole number from 1 to"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens", "max_tokens is the older name"),
        ({"top_logprobs": 3}, "top_logprobs", "top_logprobs is for log-probabilities only"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "top_logprobs must be a whole number from 0 to 20"),
        ({"logprobs": 3}, "logprobs", "logprobs must be true or false, not 3"),
        ({"prompt": "x"}, "prompt", "unknown field 'prompt': leave it out"),
        ({"echo": True}, "echo", "unknown field 'echo': leave it out"),
    ],
)
def test_a_wrong_field_of_a_chat_is_refused_by_name(fields: dict[str, object], param: str, message: str) -> None:
    error = refused_chat(**fields)
    assert str(error).startswith(message)
    assert error.param == param


def test_harmless_values_of_what_is_not_possible_are_accepted() -> None:
    request = chat(
        **{"tools": [], "tool_choice": "none", "response_format": {"type": "text"}, "modalities": ["text"]},
        **{"audio": None, "max_tokens": 5, "max_completion_tokens": 5, "logprobs": True, "top_logprobs": 2},
    )
    assert request.config == GenerationConfig(max_tokens=5, logprobs=True, top_logprobs=2)


def test_the_schema_has_every_field_with_its_default() -> None:
    for table in (completion_table(BOUNDS), chat_table(BOUNDS)):
        schema = table.schema()
        assert schema["additionalProperties"] is False
        assert set(schema["properties"]) == {field.name for field in table.fields}
        assert json.loads(json.dumps(schema)) == schema
        assert all(field["description"] for field in schema["properties"].values())
    properties = completion_table(BOUNDS).schema()["properties"]
    assert properties["temperature"] == {
        **{"type": ["number", "null"], "minimum": 0, "maximum": 100, "default": 0.9},
        "description": "Divides the logits; 0 takes the most likely token.",
    }
