"""Reads values from untrusted JSON. A value of the wrong type or size raises a ValueError that names it."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from slm.console.plain_text import MAX_TEXT, is_plain_text

MAX_DEPTH = 16
SHOWN_KEY = 60  # characters of a key in a message
MAX_INTEGER = 2**63 - 1
MOST_DIGITS = 1000  # of a whole number; the largest float has 309, and Python refuses 4,301 with advice for programmers
# A part of a path that means the same on every system. It is not "..", a drive or a hidden file.
PLAIN_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")
LONGEST_NAME = 100
# On Windows these names are devices, also with an ending.
DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)

# The last quote is optional. Otherwise the search would start again at each quote of a string that has no end.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")
_T = TypeVar("_T")


def is_plain_name(name: str) -> bool:
    """Returns whether every system accepts a file name: Latin letters, digits, `_`, `-`, dots inside, and no device."""
    return PLAIN_PART.fullmatch(name) is not None and DEVICE.fullmatch(name) is None


def as_plain_name(text: str, otherwise: str) -> str:
    """Returns a name that `is_plain_name` accepts and that is like a text: without accents, with `-` for other signs.

    Args:
        text: Any text, such as the name of a folder.
        otherwise: The name if nothing is left of the text.
    """
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    name = re.sub(r"[^A-Za-z0-9_.]+", "-", letters).strip("-.")[:LONGEST_NAME].rstrip("-.")
    return name if is_plain_name(name) else otherwise


def parse_json(content: bytes, max_depth: int = MAX_DEPTH) -> object:
    """Parses JSON that may come from an attacker.

    Args:
        content: UTF-8 text, with or without a byte order mark. The caller limits its length.
        max_depth: The deepest nesting of arrays and objects.

    Returns:
        The value. A number that no float can hold, such as 1e999, is infinite.

    Raises:
        ValueError: The bytes are not JSON, repeat a key of an object, hold NaN or Infinity, or have more than
            `max_depth` levels.
    """
    depth = 0
    for match in _BRACKET.finditer(_STRING.sub(b"", content)):
        depth += 1 if match.group() in b"[{" else -1
        if depth > max_depth:
            raise ValueError(f"more than {max_depth} levels of brackets")
    return json.loads(
        content.decode("utf-8-sig"),
        object_pairs_hook=_unique_keys,
        parse_int=_whole_number,
        parse_constant=_refuse_constant,
    )


def read_json(path: Path, max_bytes: int, max_depth: int = MAX_DEPTH) -> object:
    """Reads and parses a JSON file from an untrusted source.

    Args:
        path: The file.
        max_bytes: The largest size of the file.
        max_depth: The deepest nesting of arrays and objects.

    Raises:
        OSError: The file cannot be read.
        ValueError: As in `parse_json` and `read_limited`.
    """
    return parse_json(read_limited(path, max_bytes), max_depth)


def read_limited(path: Path, max_bytes: int) -> bytes:
    """Returns the content of a file from an untrusted source.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is larger than `max_bytes` or not a regular file.
    """
    if path.exists() and not path.is_file():
        raise ValueError("not a regular file")
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"more than {max_bytes:,} bytes")
    return content


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen = set[str]()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key[:SHOWN_KEY]!a} is there twice")
            seen.add(key)
    return values


def _whole_number(digits: str) -> int | float:
    """Returns a whole number. One of very many digits is infinite, as 1e999 is, so that its reader names its place."""
    return int(digits) if len(digits) <= MOST_DIGITS else float(digits)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


class Fields:
    """A JSON object whose values are read one by one. Every method raises a ValueError that names the wrong value."""

    def __init__(self, value: object, name: str = "") -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{name or 'the whole'} is not an object")
        self._values: dict[str, object] = value
        self._name = name

    def _path(self, key: str) -> str:
        shown = key if is_plain_name(key) else ascii(key[:40])
        return f"{self._name}.{shown}" if self._name else shown

    def value(self, key: str) -> object:
        """Returns a value of any type."""
        if key not in self._values:
            raise ValueError(f"{self._path(key)} is missing")
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        """Yields the keys, in order."""
        return iter(self._values)

    def optional(self, key: str, read: Callable[[str], _T]) -> _T | None:
        """Returns `read(key)`, or None if the key is missing or its value is null."""
        return None if self._values.get(key) is None else read(key)

    def object(self, key: str) -> Fields:
        """Returns an object inside this one."""
        return Fields(self.value(key), self._path(key))

    def text(self, key: str) -> str:
        """Returns a text that is safe to print, of at most `MAX_TEXT` characters."""
        value = self.value(key)
        if not isinstance(value, str) or len(value) > MAX_TEXT or not is_plain_text(value):
            raise ValueError(f"{self._path(key)} is not a text of printable characters, {MAX_TEXT} at most")
        return value

    def name(self, key: str) -> str:
        """Returns a name that `is_plain_name` accepts."""
        value = self.value(key)
        if not isinstance(value, str) or not is_plain_name(value):
            raise ValueError(f"{self._path(key)} is not a plain name")
        return value

    def integer(self, key: str, least: int = 0, most: int = MAX_INTEGER) -> int:
        """Returns an integer from `least` to `most`."""
        value = self.value(key)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"{self._path(key)} is not a whole number from {least} to {most}")
        return value

    def number(self, key: str) -> float:
        """Returns a finite number."""
        value = self.value(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and -MAX_INTEGER < value < MAX_INTEGER:
            return float(value)
        raise ValueError(f"{self._path(key)} is not a number")

    def flag(self, key: str) -> bool:
        """Returns true or false."""
        value = self.value(key)
        if not isinstance(value, bool):
            raise ValueError(f"{self._path(key)} is neither true nor false")
        return value

    def sha256(self, key: str) -> str:
        """Returns a SHA-256 as 64 lower-case hexadecimal digits."""
        value = self.value(key)
        if not isinstance(value, str) or re.fullmatch("[0-9a-f]{64}", value) is None:
            raise ValueError(f"{self._path(key)} is not a SHA-256")
        return value

    def objects(self, key: str) -> tuple[Fields, ...]:
        """Returns a list of objects."""
        items = self._items(key)
        return tuple(items.object(number) for number in items)

    def _items(self, key: str) -> Fields:
        value = self.value(key)
        if not isinstance(value, list):
            raise ValueError(f"{self._path(key)} is not a list")
        return Fields({str(number): item for number, item in enumerate(value)}, self._path(key))

    def texts(self, key: str) -> tuple[str, ...]:
        """Returns a list of texts."""
        items = self._items(key)
        return tuple(items.text(number) for number in items)

    def numbers(self, key: str) -> tuple[float, ...]:
        """Returns a list of finite numbers."""
        items = self._items(key)
        return tuple(items.number(number) for number in items)

    def scalars(self, key: str) -> dict[str, bool | int | str]:
        """Returns an object of texts, integers and booleans."""
        inner = self.object(key)
        found: dict[str, bool | int | str] = {}
        for name in inner:
            value = inner.value(name)
            if not is_plain_name(name):
                raise ValueError(f"{inner._path(name)} has no plain name")
            if isinstance(value, bool):
                found[name] = value
            else:
                found[name] = inner.integer(name) if isinstance(value, int) else inner.text(name)
        return found
