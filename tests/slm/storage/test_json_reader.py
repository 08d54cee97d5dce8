"""Untrusted JSON is read within limits, or refused with a ValueError."""

from __future__ import annotations

import json
import math

import pytest

from slm.storage.json_reader import MAX_DEPTH, MOST_DIGITS, is_plain_name, parse_json


def test_brackets_in_texts_are_no_depth() -> None:
    assert parse_json(json.dumps({"a": "[{" * 100 + '\\" [['}).encode()) == {"a": "[{" * 100 + '\\" [['}
    assert parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH) is not None
    with pytest.raises(ValueError, match="levels of brackets"):
        parse_json(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))


@pytest.mark.parametrize("content", [b"NaN", b'{"a": Infinity}', b"[-Infinity]"])
def test_what_is_no_number_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="is no number"):
        parse_json(content)


def test_a_whole_number_of_very_many_digits_is_infinite() -> None:
    assert parse_json(b"[" + b"9" * MOST_DIGITS + b"]") == [10**MOST_DIGITS - 1]
    assert parse_json(b'{"a": 1' + b"0" * 100_000 + b"}") == {"a": math.inf}
    assert parse_json(b"-1" + b"0" * MOST_DIGITS) == -math.inf


def test_a_key_that_is_there_twice_is_refused_at_any_depth() -> None:
    assert parse_json(b'{"a": {"b": 1}, "b": 2}') == {"a": {"b": 1}, "b": 2}
    with pytest.raises(ValueError, match="the key 'b' is there twice"):
        parse_json(b'[{"a": {"b": 1, "b": 1}}]')


@pytest.mark.parametrize(
    "name", ["con", "PRN", "aux.json", "NUL.tar.gz", "com0", "LPT9.txt", "a.", "-a", ".a", "a b", ""]
)
def test_a_name_that_some_system_refuses_is_not_plain(name: str) -> None:
    assert not is_plain_name(name)


@pytest.mark.parametrize("name", ["console", "auxiliary.json", "nul_", "com", "com10", "a-con", "_", "a" * 100])
def test_a_name_that_looks_like_a_device_is_plain(name: str) -> None:
    assert is_plain_name(name)
