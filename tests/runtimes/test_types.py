"""One list of settings for the command line and the Python interface, checked in one place."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields
from typing import Any

import pytest

from runtimes import commands
from runtimes.types import GenerationConfig, LogitsRules, SamplingParams, Settings, read_settings
from slm.errors import SlmxError

KINDS = (GenerationConfig, SamplingParams, LogitsRules)


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
    parameters = inspect.signature(commands.generate).parameters
    for name, default in settings_by_class().items():
        shown = parameters[name].default
        assert shown is None if name in ("stop", "logit_bias") else shown == default, name


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


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stop": ("a", "")}, "a stop string must not be empty"),
        ({"on_full": "shift"}, "on full must be one of stop, slide, not 'shift'"),
        ({"max_tokens": 0}, "max tokens must be at least 1, not 0"),
        ({"max_tokens": -1}, "max tokens must be at least 1, not -1"),
    ],
)
def test_a_limit_outside_its_range_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SlmxError) as caught:
        GenerationConfig(**values)
    assert str(caught.value) == message
