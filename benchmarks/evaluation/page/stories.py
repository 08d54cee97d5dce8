"""The stories of the page: the endings of all models for one beginning, with the words that a variant changes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from benchmarks.evaluation.controls import CONTROLS
from benchmarks.evaluation.run import TRUE
from runtimes.beginnings import shared_length
from slm.console.counted import counted

FLOAT = "fp32"
# After the first difference, fewer equal words in a row than this are chance.
LEAST_EQUAL = 4
MOST_BYTES = 220_000  # of all stories of a page, in UTF-8
OPEN = 3  # beginnings that are not folded
_WORD = re.compile(r"^\s+|\S+\s*")  # with the white space after it


@dataclass(frozen=True)
class Part:
    """A part of an ending.

    Attributes:
        text: The text.
        differs: Whether it differs from the ending that this one is compared with.
    """

    text: str
    differs: bool


@dataclass(frozen=True)
class Column:
    """An ending.

    Attributes:
        name: Who wrote it.
        parts: The text. It is empty if the text is the same as that of another variant.
        note: What it is compared with, and where it differs; empty if it is compared with nothing.
    """

    name: str
    parts: tuple[Part, ...]
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A beginning with its endings.

    Attributes:
        opening: The beginning.
        columns: The endings: the true one, then those of the models.
        is_open: Whether the page shows it without a click.
    """

    opening: str
    columns: tuple[Column, ...]
    is_open: bool


def rows_of(endings: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Row]:
    """Returns the beginnings with their endings, as many as a page has room for.

    Args:
        endings: The endings by model, as in an evaluation. Controls are left out.
    """
    names = [name for name in endings if name not in CONTROLS]
    models = _bases_first([name for name in names if name != TRUE])
    if not models:
        return []
    rows: list[Row] = []
    room = MOST_BYTES
    for number, first in enumerate(endings[models[0]]):
        texts = {name: str(endings[name][number]["text"]) for name in names}
        room -= sum(len(text.encode("utf-8", "replace")) for text in (first["opening"], *texts.values()))
        if room < 0 and rows:
            break
        columns = [Column(TRUE, (Part(texts[TRUE].strip(), False),))] if TRUE in texts else []
        columns += [_column(name, texts, _base(name, models)) for name in models]
        rows.append(Row(str(first["opening"]), tuple(columns), number < OPEN))
    return rows


def _bases_first(models: Sequence[str]) -> list[str]:
    """Returns the models in their order, but of each the variant first that its others are compared with."""
    order = {name.rpartition(" ")[0]: place for place, name in reversed(list(enumerate(models)))}
    return sorted(models, key=lambda name: (order[name.rpartition(" ")[0]], _base(name, models) is not None))


def _base(name: str, models: Sequence[str]) -> str | None:
    """Returns the variant that a variant of the same model is compared with: fp32, or the first one."""
    model = name.rpartition(" ")[0]
    same = [other for other in models if other.rpartition(" ")[0] == model]
    base = f"{model} {FLOAT}" if f"{model} {FLOAT}" in same else same[0]
    return None if base == name else base


def _column(name: str, texts: Mapping[str, str], base: str | None) -> Column:
    text = texts[name].strip()
    if base is None:
        return Column(name, (Part(text, False),))
    other = texts[base].strip()
    if text.split() == other.split():
        return Column(name, (), f"the same words as {base}")
    equal = shared_length(other.split(), text.split())
    where = f"after {counted(equal, 'word')}" if equal else "from the first word on"
    return Column(name, compared(other, text), f"differs from {base} {where}")


def compared(base: str, text: str) -> tuple[Part, ...]:
    """Divides a text into parts that are the same as in another text, and parts that are not.

    Args:
        base: The other text.
        text: The text.

    Returns:
        The parts. Together they are the text. No two parts that follow each other are of one kind.
    """
    pieces = _WORD.findall(text)
    old, new = ([word.strip() for word in _WORD.findall(one)] for one in (base, text))
    equal = shared_length(old, new)
    found = [Part("".join(pieces[:equal]), False)] if equal else []
    matcher = SequenceMatcher(None, old[equal:], new[equal:], autojunk=False)
    for kind, _, _, start, end in matcher.get_opcodes():
        differs = kind != "equal" or end - start < LEAST_EQUAL
        piece = "".join(pieces[equal + start : equal + end])
        if found and found[-1].differs == differs:
            found[-1] = Part(found[-1].text + piece, differs)
        elif piece:
            found.append(Part(piece, differs))
    return tuple(found)
