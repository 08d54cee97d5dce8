"""One list of settings for the command line and the Python interface, checked in one place."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields
from typing import Any

import numpy as np
import pytest

from runtimes import load
from runtimes.generate.commands import generate
from runtimes.types import GenerationConfig, LogitsRules, SamplingParams, Settings, read_settings
from slm.console.errors import SlmxError, UsageError

KINDS = (GenerationConfig, SamplingParams, LogitsRules)
NO_TEXT = "holds bytes that are not UTF-8 text; retype it, or convert it to UTF-8"
NO_FLAGS = {"top_logprobs", "stop_token_ids", "ignore_eos"}  # they are for requests of `slmx serve` and for Python


def settings_by_class() -> dict[str, Any]:
    """Every setting and its default, from the classes that check them."""
    found = {}
    for kind in KINDS:
        for item in fields(kind):
            if item.name != "rules":
                assert item.name not in found
                found[item.name] = item.default if item.default_factory is MISSING else item.default_factory()
    return found


def test_the_settings_by_name_are_those_of_the_classes() -> None:
    assert set(Settings.__annotations__) == set(settings_by_class())


def test_the_command_line_has_every_setting_with_its_default() -> None:
    parameters = inspect.signature(generate).parameters
    assert not NO_FLAGS & set(parameters)
    for name, default in settings_by_class().items():
        if name in NO_FLAGS:
            continue
        shown = parameters[name].default
        assert shown is None if name in ("stop", "logit_bias", "ban_words") else shown == default, name


def test_settings_reach_their_classes() -> None:
    config, sampling = read_settings(max_tokens=3, stop=["a"], temperature=0.5, seed=1, min_tokens=2, logit_bias={4: 1})
    assert config == GenerationConfig(3, ("a",))
    assert sampling == SamplingParams(0.5, seed=1, rules=LogitsRules(min_tokens=2, logit_bias={4: 1.0}))
    assert read_settings() == (GenerationConfig(), SamplingParams())


def test_a_name_that_is_no_setting_is_an_error_of_the_caller() -> None:
    with pytest.raises(TypeError, match="temprature"):
        read_settings(temprature=1.0)  # type: ignore[call-arg]


def test_one_stop_string_need_not_be_a_list() -> None:
    assert GenerationConfig(stop="The end.").stop == ("The end.",)
    assert GenerationConfig(stop=["a", "b"]).stop == ("a", "b")
    assert LogitsRules(ban_words="cat").ban_words == ("cat",)
    assert LogitsRules(ban_words=["cat", "dog"]).ban_words == ("cat", "dog")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stop": ("a", "")}, "a stop string must not be empty"),
        ({"stop": "caf\udce9"}, f"a stop string {NO_TEXT}"),
        ({"stop": ["a", "\ud800"]}, f"a stop string {NO_TEXT}"),
        ({"on_full": "shift"}, "on full must be one of stop, slide, not 'shift'"),
        ({"max_tokens": 0}, "max tokens must be at least 1, not 0"),
        ({"max_tokens": -1}, "max tokens must be at least 1, not -1"),
        ({"top_logprobs": -1}, "top logprobs must be at least 0, not -1"),
        ({"stop_token_ids": [-1]}, "stop token ids: an id must lie from 0 to 2147483647, not -1"),
        ({"stop_token_ids": [10**30]}, f"stop token ids: an id must lie from 0 to 2147483647, not {10**30}"),
    ],
)
def test_a_limit_outside_its_range_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SlmxError) as caught:
        GenerationConfig(**values)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"temperature": "hot"}, "temperature must be a number, not 'hot'"),
        ({"top_k": 2.5}, "top-k must be a whole number, not 2.5"),
        ({"top_p": None}, "top-p must be a number, not None"),
        ({"min_p": [0.1]}, "min-p must be a number, not [0.1]"),
        ({"seed": 1.5}, "seed must be a whole number, not 1.5"),
        ({"max_tokens": 2.5}, "max tokens must be a whole number, not 2.5"),
        ({"max_tokens": True}, "max tokens must be a whole number, not True"),
        ({"stop": 5}, "stop must be a text or a list of texts, not 5"),
        ({"stop": ["a", b"b"]}, "stop must be a text or a list of texts, not ['a', b'b']"),
        ({"ban_words": 5}, "ban words must be a text or a list of texts, not 5"),
        ({"ban_words": ["a", b"b"]}, "ban words must be a text or a list of texts, not ['a', b'b']"),
        ({"top_logprobs": True}, "top logprobs must be a whole number, not True"),
        ({"ignore_eos": 1}, "ignore eos must be True or False, not 1"),
        ({"stop_token_ids": 5}, "stop token ids must be a list of ids, not 5"),
        ({"stop_token_ids": "5"}, "stop token ids must be a list of ids, not '5'"),
        ({"stop_token_ids": ["5"]}, "stop token ids: an id must be a whole number, not '5'"),
        ({"logprobs": "x"}, "logprobs must be True or False, not 'x'"),
        ({"repetition_penalty": "1"}, "repetition penalty must be a number, not '1'"),
        ({"presence_penalty": {}}, "presence penalty must be a number, not {}"),
        ({"no_repeat_ngram": 1.0}, "no-repeat n-gram must be a whole number, not 1.0"),
        ({"min_tokens": "3"}, "min tokens must be a whole number, not '3'"),
        ({"logit_bias": [1]}, "logit bias must be a mapping of ids to numbers, not [1]"),
        ({"logit_bias": {"a": 1.0}}, "logit bias: the id of a token must be a whole number, not 'a'"),
        ({"logit_bias": {1: "a"}}, "logit bias must be a number, not 'a'"),
    ],
)
def test_a_value_of_another_type_is_one_line_that_names_the_setting(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_settings(**settings)
    assert str(caught.value) == line


def test_numbers_of_numpy_are_numbers() -> None:
    numbers: dict[str, Any] = {
        "max_tokens": np.int64(3),
        "temperature": np.float32(0.5),
        "logit_bias": {np.int32(1): 2},
    }
    config, sampling = read_settings(**numbers)
    assert (config.max_tokens, sampling.temperature) == (3, 0.5)


def test_a_story_with_whole_numbers_of_numpy_is_the_one_with_those_of_python() -> None:
    numbers = {"seed": 5, "top_k": 40, "max_tokens": 6, "min_tokens": 3, "no_repeat_ngram": 2, "top_logprobs": 1}
    small: dict[str, Any] = {name: np.uint8(number) for name, number in numbers.items()}
    plain: dict[str, Any] = dict(numbers)
    with load() as generator:
        found, expected = generator.generate(**small), generator.generate(**plain)
    assert (found.ids, found.top_logprobs) == (expected.ids, expected.top_logprobs)
    assert type(found.stats.seed) is int


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"prompt": None}, "the prompt must be a text (str), not NoneType"),
        ({"prompt": b"Once"}, "the prompt must be a text (str), not bytes"),
        ({"n": 2.5}, "n must be a whole number, not 2.5"),
    ],
)
def test_a_prompt_and_a_count_of_another_type_are_one_line(wrong: dict[str, Any], line: str) -> None:
    with load() as generator, pytest.raises(UsageError) as caught:
        generator.generate(**wrong)
    assert str(caught.value) == line


@pytest.mark.parametrize("wrong", [{"threads": 2.5}, {"slots": "2"}])
def test_numbers_of_load_of_another_type_are_one_line(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"^(threads|slots) must be a whole number, not (2\.5|'2')$"):
        load(**wrong)
