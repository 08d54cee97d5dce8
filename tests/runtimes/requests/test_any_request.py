"""Any JSON object is read or refused with one line: nothing else happens."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtimes.requests.chat import ChatRequest, read_chat
from runtimes.requests.completion import CompletionRequest, read_completion
from runtimes.requests.errors import RequestError
from runtimes.requests.fields import Bounds, chat_table, completion_table

BOUNDS = Bounds()
MESSAGES = [{"role": "user", "content": "Once"}]
NAMES = {field.name for table in (completion_table(BOUNDS), chat_table(BOUNDS)) for field in table.fields}
HUGE = 10**400

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())  # with lone surrogates and NUL
    | st.sampled_from([HUGE, -HUGE, "text", "user", 0, 1, "x" * 100_000]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
REQUESTS = st.dictionaries(
    st.sampled_from(sorted(NAMES)) | st.text(st.characters(), max_size=20), JSON_VALUES, max_size=6
)
PARTS = st.fixed_dictionaries({"type": st.sampled_from(["text", "x"]), "text": JSON_VALUES}) | JSON_VALUES
LIKELY_MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "tool"]) | JSON_VALUES,
                           "content": st.text() | st.lists(PARTS, max_size=3) | JSON_VALUES}) | JSON_VALUES,
    max_size=3,
)  # fmt: skip


def answer_of(read: Callable[[dict[str, object], Bounds], object], fields: dict[str, object]) -> str | None:
    """The message of a refusal, or None if the request was read. Any other exception fails the test."""
    try:
        assert isinstance(read(fields, BOUNDS), CompletionRequest | ChatRequest)
    except RequestError as found:
        error = found
    else:
        return None
    assert error.status == 400
    assert "\n" not in str(error)
    assert len(str(error)) < 500
    assert str(error).isascii()
    assert error.param is None or error.param.isascii()
    return str(error)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(fields=REQUESTS, prompt=JSON_VALUES, messages=LIKELY_MESSAGES)
def test_any_object_is_read_or_refused(fields: dict[str, object], prompt: object, messages: object) -> None:
    answer_of(read_completion, fields)
    answer_of(read_completion, {**fields, "prompt": prompt})
    answer_of(read_chat, {**fields, "messages": messages})


@settings(max_examples=200)
@given(name=st.sampled_from(sorted(NAMES - {"prompt", "messages"})), value=JSON_VALUES)
def test_any_value_of_one_field_is_read_or_refused_by_its_name(name: str, value: object) -> None:
    for read, rest in ((read_completion, {"prompt": "x"}), (read_chat, {"messages": MESSAGES})):
        message = answer_of(read, {**rest, name: value})
        assert message is None or name in message


@pytest.mark.parametrize(
    "fields",
    [
        {"x" * 1_000_000: 1},
        {str(number): 1 for number in range(100_000)},
        {"prompt": ["x"] * 1_000_000},
        {"prompt": [1] * 1_000_000},
        {"prompt": "x", "stop": "y" * 10_000_000},
        {"prompt": "x", "logit_bias": {str(number): 1 for number in range(100_000)}},
        {"prompt": "x", "temperature": sys.maxsize**1000},
        {"messages": [{"role": "x" * 1_000_000, "content": ""}]},
    ],
)
def test_a_large_value_is_read_or_refused_with_a_short_message(fields: dict[str, object]) -> None:
    answer_of(read_completion, fields)
    answer_of(read_chat, fields)
