"""Damages the content of a file at random. The same seed always gives the same damage."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

NUMBERS = (0, 1, -1, 2, 127, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
NUMERALS = (
    *(str(number) for number in NUMBERS),
    *("-0", "0.5", "1e999", "-1e999", "NaN", "Infinity", "9" * 400, "9" * 5000, "1e-400", "007", "true", "null"),
)
TEXTS = (
    *(
        "",
        " ",
        "\n",
        "\r\n",
        "\0",
        "\x1b[31m",
        "\ud800",
        "\u2028",
        "é",
        "/etc/passwd",
        "../x",
        "a/../../b",
        "C:x",
        "con",
    ),
    *("x" * 2000, "[" * 50, "%s{}", "__class__", "<|endoftext|>", "PK\3\4", "\U0001f600" * 9),
)
MARKS = (
    *(
        b"PK\3\4",
        b"PK\1\2",
        b"PK\5\6",
        b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        b"GGUF",
        b"\x93NUMPY",
        b"ORTM",
        b"{",
        b"[",
    ),
    *(b'"', b"}", b"]", b",", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\n", b"\r", b"\0" * 8, b"\xff" * 8),
)
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_KEY = re.compile(rb'"(\w{1,30})": ?')
DEEP = 3000


def mutated(seeds: Sequence[bytes], is_json: bool, name: str, number: int) -> bytes:
    """Returns a damaged content.

    Args:
        seeds: Whole contents.
        is_json: Whether they are JSON, so that values are changed too.
        name: What is read, as a part of the seed.
        number: The number of the damage.
    """
    rng = random.Random(f"{name} {number}")
    content = rng.choice(seeds)
    if is_json and rng.random() < 0.6:
        content = _json_damage(content, rng)
        if rng.random() < 0.7:
            return content
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        damage = rng.choice(DAMAGES)
        content = _splice(content, rng, rng.choice(seeds)) if damage is None else damage(content, rng)
    return content


def _place(content: bytes, rng: random.Random) -> int:
    """Returns a place; half of them are near the start or the end, where headers are."""
    size = len(content)
    kind = rng.random()
    if kind < 0.35:
        return rng.randrange(min(size, 200) + 1)
    return size - rng.randrange(min(size, 100) + 1) if kind < 0.5 else rng.randrange(size + 1)


def _part(content: bytes, rng: random.Random) -> tuple[int, int]:
    start = _place(content, rng)
    return start, min(len(content), start + rng.choice((1, 2, 4, 8, 40, 300, 2000)))


def _flip_bit(content: bytes, rng: random.Random) -> bytes:
    return _write(content, _place(content, rng), lambda old: bytes([old[0] ^ 1 << rng.randrange(8)]), 1)


def _set_byte(content: bytes, rng: random.Random) -> bytes:
    return _write(content, _place(content, rng), lambda old: bytes([rng.randrange(256)]), 1)


def _set_number(content: bytes, rng: random.Random) -> bytes:
    size = rng.choice((1, 2, 4, 8))
    number = rng.choice(NUMBERS) % 2 ** (8 * size)
    order: Any = rng.choice(("little", "big"))
    return _write(content, _place(content, rng), lambda old: number.to_bytes(size, order), size)


def _write(content: bytes, at: int, change: Callable[[bytes], bytes], size: int) -> bytes:
    old = content[at : at + size]
    return content[:at] + change(old)[: len(old)] + content[at + size :] if old else content


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: _place(content, rng)]


def _remove(content: bytes, rng: random.Random) -> bytes:
    start, end = _part(content, rng)
    return content[:start] + content[end:]


def _repeat(content: bytes, rng: random.Random) -> bytes:
    start, end = _part(content, rng)
    return content[:end] + content[start:end] * rng.choice((1, 1, 2, 50)) + content[end:]


def _move(content: bytes, rng: random.Random) -> bytes:
    start, end = _part(content, rng)
    at = _place(content, rng)
    return content[:at] + content[start:end] + content[at:]


def _insert(content: bytes, rng: random.Random) -> bytes:
    at = _place(content, rng)
    new = rng.choice(MARKS) if rng.random() < 0.6 else rng.randbytes(rng.choice((1, 2, 4, 30)))
    return content[:at] + new + content[at:]


def _splice(content: bytes, rng: random.Random, other: bytes) -> bytes:
    return content[: _place(content, rng)] + other[_place(other, rng) :]


def _edit_numeral(content: bytes, rng: random.Random) -> bytes:
    """Replaces a number in a text."""
    found = _NUMBER.search(content, _place(content, rng))
    return _swap(content, found.span(), rng.choice(NUMERALS).encode()) if found else content


def _repeat_key(content: bytes, rng: random.Random) -> bytes:
    """Puts a key of an object there twice."""
    found = _KEY.search(content, _place(content, rng))
    return _swap(content, (found.start(), found.start()), found.group() + b"0,") if found else content


def _nest(content: bytes, rng: random.Random) -> bytes:
    at, deep = _place(content, rng), rng.choice((20, DEEP, 100_000))
    return content[:at] + rng.choice((b"[", b'{"a":')) * deep + content[at:]


def _swap(content: bytes, span: tuple[int, int], new: bytes) -> bytes:
    return content[: span[0]] + new + content[span[1] :]


Damage = Callable[[bytes, random.Random], bytes]
# None stands for `_splice`, which needs another content too.
DAMAGES: tuple[Damage | None, ...] = (
    *(None, _flip_bit, _set_byte, _set_number, _set_number, _cut, _remove, _repeat, _move, _insert),
    *(_edit_numeral, _edit_numeral, _repeat_key, _nest),
)


@cache
def _parsed(content: bytes) -> str:
    """The text of JSON, or of its lines as a list; a copy can be made of it quickly."""
    try:
        return json.dumps(json.loads(content))
    except ValueError:
        return json.dumps([json.loads(line) for line in content.splitlines() if line.strip()])


def _json_damage(content: bytes, rng: random.Random) -> bytes:
    """Changes values of JSON, or of JSON lines, and writes it again."""
    lines = content.count(b"\n") > 1 and content.startswith(b"{") and content.split(b"\n", 1)[0].endswith(b"}")
    values: Any = json.loads(_parsed(content))
    for _ in range(rng.choice((1, 1, 2, 4))):
        table, key = _slot(values, rng)
        if table is None:
            return json.dumps(_value(rng, values)).encode()
        kind = rng.random()
        if kind < 0.15:
            del table[key]
        elif kind < 0.25 and isinstance(table, dict):
            table[rng.choice((*TEXTS, *table))] = table.pop(key)
        elif kind < 0.3 and isinstance(table, list):
            table += table[: rng.choice((1, 5))] * rng.choice((1, 30))
        else:
            table[key] = _value(rng, values)
    text = "\n".join(map(json.dumps, values)) if lines and isinstance(values, list) else json.dumps(values)
    return text.encode()


def _slot(values: Any, rng: random.Random) -> tuple[Any, Any]:  # noqa: ANN401  # JSON
    """Returns a random list or object and a key in it; None if there is no value."""
    table, key, here = None, None, values
    while isinstance(here, dict | list) and here and (table is None or rng.random() < 0.75):
        table = here
        key = rng.choice(list(here)) if isinstance(here, dict) else rng.randrange(len(here))
        here = here[key]
    return table, key


def _value(rng: random.Random, values: Any) -> Any:  # noqa: ANN401  # JSON
    """Returns a value that fits nowhere, or one from elsewhere."""
    made: tuple[Any, ...] = (
        *(
            rng.choice(NUMBERS),
            rng.choice(NUMBERS),
            rng.choice(TEXTS),
            rng.choice(TEXTS),
            rng.random() * 10,
            1e308,
            10**400,
        ),
        *(None, True, False, [], {}, [None], {"": {}}, [[]] * 3, {"a": 1}, -5, 1.5, rng.randrange(1000)),
    )
    chosen = rng.choice(made)
    if rng.random() < 0.2:
        table, key = _slot(values, rng)
        chosen = json.loads(json.dumps(table[key])) if table is not None else None
    return chosen
