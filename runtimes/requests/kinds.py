"""The kinds of values in a request. Each kind checks a value and describes itself as a JSON schema."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from runtimes.requests.errors import RequestError
from runtimes.types import LARGEST_ID
from slm.console.counted import counted

Schema = dict[str, Any]
_T_co = TypeVar("_T_co", covariant=True)

SHOWN = 60  # characters of a wrong value in a message
SHOWN_BITS = 64
ENDLESS = "a number of more than 300 digits"  # only such a number of JSON is infinite
NO_NUL = r"^[^\u0000]*$"
ID_KEY = re.compile("0|[1-9][0-9]{0,8}")


class Kind(Protocol[_T_co]):
    """What a field can hold."""

    def read(self, name: str, value: object) -> _T_co:
        """Returns the checked value of a field.

        Args:
            name: The name of the field, for messages.
            value: A value that `json.loads` can return.

        Raises:
            RequestError: The value is of another kind or out of its range.
        """

    def schema(self) -> Schema:
        """Returns the JSON schema of the values that `read` accepts."""


def shown(value: object) -> str:
    """Formats a wrong value for one line of a message. It takes little time for a value of any size."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value) if value.bit_length() <= SHOWN_BITS else f"a number of {value.bit_length():,} bits"
    if isinstance(value, float):
        return ENDLESS if math.isinf(value) else repr(value)
    if isinstance(value, str):
        return ascii(value) if len(value) <= SHOWN else f"{value[:SHOWN]!a}... ({len(value):,} characters)"
    if isinstance(value, Mapping):
        return f"an object with {counted(len(value), 'field')}"
    return f"a list of {len(value):,}" if isinstance(value, list) else type(value).__name__


def wrong(name: str, what: str, value: object) -> RequestError:
    """Returns the error for a value that is not `what`."""
    return RequestError(f"{name} must be {what}, not {shown(value)}", name)


@dataclass(frozen=True)
class Number:
    """A finite number from `least` to `most`. `least` itself is not allowed if `above`."""

    least: float
    most: float
    note: str = ""
    above: bool = False

    def read(self, name: str, value: object) -> float:
        """Returns the number as a float."""
        if isinstance(value, int | float) and not isinstance(value, bool) and self.least <= value <= self.most:
            found = float(value)
            if not (self.above and found == self.least):
                return found
        start = f"above {self.least:g} and up to" if self.above else f"from {self.least:g} to"
        raise wrong(name, f"a number {start} {self.most:g}{self.note and f' ({self.note})'}", value)

    def schema(self) -> Schema:
        """Returns the range."""
        return {"type": "number", "exclusiveMinimum" if self.above else "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True)
class Whole:
    """A whole number from `least` to `most`. As in a JSON schema, 3.0 is a whole number."""

    least: int
    most: int
    note: str = ""

    def read(self, name: str, value: object) -> int:
        """Returns the number."""
        if isinstance(value, int | float) and not isinstance(value, bool) and self.least <= value <= self.most:
            found = int(value)
            if found == value:
                return found
        raise wrong(name, f"a whole number from {self.least} to {self.most}{self.note and f' ({self.note})'}", value)

    def schema(self) -> Schema:
        """Returns the range."""
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def read(self, name: str, value: object) -> bool:
        """Returns the value."""
        if not isinstance(value, bool):
            raise wrong(name, "true or false", value)
        return value

    def schema(self) -> Schema:
        """Returns the type."""
        return {"type": "boolean"}


@dataclass(frozen=True)
class Text:
    """A text of `least` to `most` characters; None is no limit. It has no NUL character and no lone surrogate."""

    most: int | None = None
    least: int = 0

    def read(self, name: str, value: object) -> str:
        """Returns the text."""
        if not isinstance(value, str):
            raise wrong(name, "a text", value)
        if len(value) < self.least or (self.most is not None and len(value) > self.most):
            limit = f"at least {self.least}" if self.most is None else f"{self.least} to {self.most:,}"
            raise wrong(name, f"a text of {limit} characters", value)
        if "\0" in value:
            raise RequestError(f"{name} must not hold the NUL character (U+0000)", name)
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise RequestError(f"{name} must be valid Unicode: it holds half of a surrogate pair", name) from None
        return value

    def schema(self) -> Schema:
        """Returns the limits."""
        limits = {"minLength": self.least or None, "maxLength": self.most}
        return {"type": "string", "pattern": NO_NUL} | {key: size for key, size in limits.items() if size is not None}


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    values: tuple[str, ...]

    def read(self, name: str, value: object) -> str:
        """Returns the value."""
        if not isinstance(value, str) or value not in self.values:
            raise wrong(name, f"one of {', '.join(self.values)}", value)
        return value

    def schema(self) -> Schema:
        """Returns the values."""
        return {"enum": list(self.values)}


@dataclass(frozen=True)
class Texts:
    """One text, or a list of at most `most` texts. If `most` is 0, only the empty list."""

    most: int
    text: Text

    def read(self, name: str, value: object) -> tuple[str, ...]:
        """Returns the texts."""
        if self.most and isinstance(value, str):
            return (self.text.read(name, value),)
        if not isinstance(value, list) or len(value) > self.most:
            what = f"a text or a list of at most {counted(self.most, 'text')}" if self.most else "an empty list"
            raise wrong(name, what, value)
        return tuple(self.text.read(f"{name}[{number}]", item) for number, item in enumerate(value))

    def schema(self) -> Schema:
        """Returns the possible forms."""
        text = self.text.schema()
        texts = {"type": "array", "items": text, "maxItems": self.most}
        return {"anyOf": [text, texts]} if self.most else texts


@dataclass(frozen=True)
class Ids:
    """A list of `least` to `most` ids of tokens; None is no limit."""

    most: int | None
    least: int = 0

    def read(self, name: str, value: object) -> tuple[int, ...]:
        """Returns the ids. Whether the vocabulary has them is not known here."""
        if not isinstance(value, list) or len(value) < self.least or (self.most is not None and len(value) > self.most):
            limit = f"at least {self.least}" if self.most is None else f"{self.least} to {self.most:,}"
            raise wrong(name, f"a list of {limit} ids", value)
        if {*map(type, value)} == {int} and min(value) >= 0 and max(value) <= LARGEST_ID:
            return tuple(value)
        one = Whole(0, LARGEST_ID, "the id of a token")
        return tuple(one.read(f"{name}[{number}]", item) for number, item in enumerate(value))

    def schema(self) -> Schema:
        """Returns the limits."""
        limits = {"minItems": self.least or None, "maxItems": self.most}
        items = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": LARGEST_ID}}
        return items | {key: size for key, size in limits.items() if size is not None}


@dataclass(frozen=True)
class Bias:
    """An object of at most `entries` ids of tokens, each with a number from -`most` to `most`."""

    entries: int
    most: float

    def read(self, name: str, value: object) -> dict[int, float]:
        """Returns the bias of each id."""
        if not isinstance(value, Mapping) or len(value) > self.entries:
            raise wrong(name, f"an object of at most {self.entries:,} ids of tokens and their numbers", value)
        number = Number(-self.most, self.most)
        found: dict[int, float] = {}
        for key, item in value.items():
            if not ID_KEY.fullmatch(key):
                raise RequestError(
                    f'{name} must have the ids of tokens as its keys, such as {{"42": -5}}, not {shown(key)}', name
                )
            found[int(key)] = number.read(f"{name}[{key}]", item)
        return found

    def schema(self) -> Schema:
        """Returns the limits."""
        return {
            "type": "object",
            "propertyNames": {"pattern": f"^({ID_KEY.pattern})$"},
            "additionalProperties": {"type": "number", "minimum": -self.most, "maximum": self.most},
            "maxProperties": self.entries,
        }


@dataclass(frozen=True)
class Only:
    """The few values that change nothing, of a field that slmx cannot serve."""

    values: tuple[object, ...]
    reason: str

    def read(self, name: str, value: object) -> None:
        """Returns nothing; RequestError for every other value."""
        if not any(value == known and isinstance(value, bool) == isinstance(known, bool) for known in self.values):
            raise RequestError(f"{name}: {self.reason}", name, "unsupported_value")

    def schema(self) -> Schema:
        """Returns the values."""
        return {"enum": list(self.values)}


@dataclass(frozen=True)
class Anything:
    """Any value. It is not looked at."""

    def read(self, name: str, value: object) -> None:
        """Returns nothing."""

    def schema(self) -> Schema:
        """Returns the schema of every value."""
        return {}
