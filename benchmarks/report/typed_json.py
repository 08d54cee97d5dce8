"""Reads JSON objects into dataclasses. It checks every field against its annotation. An error names the first fault."""

from __future__ import annotations

import math
import reprlib
import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar

T = TypeVar("T")
LARGEST_INT = 2**63


def from_json(kind: type[T], value: object, where: str = "") -> T:
    """Builds a dataclass from a JSON value.

    The types of fields may be str, bool, int, float, another dataclass, list[X], dict[str, X], or one of these or None.

    Args:
        kind: The dataclass.
        value: What the JSON parser returned.
        where: The place of the value in the file, for messages.

    Raises:
        ValueError: A field is missing, unknown, of another type, or not finite, or the class refuses the value.
    """
    if not isinstance(value, dict):
        raise _wrong(where, "an object", value)
    hints = typing.get_type_hints(kind)
    for name in value:
        if name not in hints:
            raise ValueError(f"{_join(where, name)}: unknown field")
    for entry in fields(typing.cast(type, kind)):
        if entry.name not in value and entry.default is MISSING and entry.default_factory is MISSING:
            raise ValueError(f"{_join(where, entry.name)}: missing")
    found = {name: _checked(hints[name], inner, _join(where, name)) for name, inner in value.items()}
    try:
        return kind(**found)
    except ValueError as error:
        raise ValueError(f"{where}: {error}" if where else str(error)) from None


def _checked(hint: Any, value: object, where: str) -> object:  # noqa: ANN401 - an annotation has no type of its own
    if is_dataclass(hint):
        return from_json(typing.cast(type, hint), value, where)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        (present,) = (kind for kind in inner if kind is not type(None))
        return None if value is None else _checked(present, value, where)
    if origin is list:
        if not isinstance(value, list):
            raise _wrong(where, "a list", value)
        return [_checked(inner[0], entry, f"{where}[{number}]") for number, entry in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong(where, "an object", value)
        return {name: _checked(inner[1], entry, _join(where, name)) for name, entry in value.items()}
    if hint is float:
        if type(value) not in (int, float) or not abs(typing.cast(float, value)) < math.inf:
            raise _wrong(where, "a number", value)
        try:
            return float(typing.cast(float, value))
        except OverflowError:
            raise _wrong(where, "a number", value) from None
    if type(value) is not hint or (hint is int and abs(typing.cast(int, value)) > LARGEST_INT):
        raise _wrong(where, {str: "text", int: "a whole number", bool: "true or false"}[hint], value)
    return value


def _join(where: str, name: str) -> str:
    name = name if name.isidentifier() else reprlib.repr(name)
    return f"{where}.{name}" if where else name


def _wrong(where: str, expected: str, value: object) -> ValueError:
    return ValueError(f"{where or 'the file'}: expected {expected}, found {reprlib.repr(value)}")
