"""The questions of a rating sheet, and the key that says which side is which model."""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.evaluation.stories import Ending
from slm.console.errors import SlmxError
from slm.storage.disk import write_file
from slm.storage.hashing import sha256_of_bytes
from slm.storage.json_reader import Fields, read_json
from slm.storage.read_errors import unreadable

KEY = "rating-key.json"
DIGEST = "digest"  # of everything else in the key
MAX_BYTES = 2**26
Endings = Mapping[str, Sequence[Ending]]


@dataclass(frozen=True)
class Question:
    """Two endings of one opening.

    Attributes:
        id: A random name. The page has only this.
        opening: The number of the opening.
        a: The model of the ending on the left.
        b: The model of the ending on the right.
    """

    id: str
    opening: int
    a: str
    b: str


@dataclass(frozen=True)
class Key:
    """What a sheet asks.

    Attributes:
        sheet: A random name of the sheet.
        sha256: A hash of the endings.
        pairs: Which models are compared, each with its opponent.
        same: The number of openings for which both wrote the same ending, for each pair. Nobody is asked about them.
        questions: The questions in the order of the page.
    """

    sheet: str
    sha256: str
    pairs: tuple[tuple[str, str], ...]
    same: tuple[int, ...]
    questions: tuple[Question, ...]

    @classmethod
    def make(cls, endings: Endings, pairs: Sequence[tuple[str, str]]) -> Key:
        """Makes questions. Their order, their names and their sides are random and follow from no seed."""
        questions: list[Question] = []
        same: list[int] = []
        for one, other in pairs:
            count = len(questions)
            for number, (ours, theirs) in enumerate(zip(endings[one], endings[other], strict=True)):
                if ours.text.strip() != theirs.text.strip():
                    a, b = (one, other) if secrets.randbelow(2) else (other, one)
                    questions.append(Question(secrets.token_hex(8), number, a, b))
            same.append(len(endings[one]) - len(questions) + count)
        random.SystemRandom().shuffle(questions)
        return cls(secrets.token_hex(8), _hash(endings, pairs), tuple(pairs), tuple(same), tuple(questions))

    @classmethod
    def read(cls, folder: Path) -> Key:
        """Reads the key in the folder of an evaluation.

        Raises:
            SlmxError: There is none, or it is damaged.
        """
        path = folder / KEY
        if not path.exists():
            raise SlmxError(f"{path}: not found; give the --out with which the sheet was made")
        try:
            content = read_json(path, MAX_BYTES)
            if not isinstance(content, dict) or content.pop(DIGEST, None) != _digest(content):
                raise ValueError("it was changed after it was written")
            return _read(Fields(content))
        except OSError as error:
            raise unreadable(path, error) from None
        except ValueError as error:
            raise SlmxError(f"{path}: damaged: {error}; make the sheet again with another --out") from None

    def save(self, folder: Path) -> None:
        """Writes the key into the folder of an evaluation."""
        content = json.loads(json.dumps(asdict(self)))
        whole = json.dumps(content | {DIGEST: _digest(content)}, indent=1, ensure_ascii=False)
        write_file(folder / KEY, whole.encode() + b"\n")


def key_of(folder: Path, endings: Endings, pairs: Sequence[tuple[str, str]]) -> Key:
    """Returns the key of a folder. A sheet that is out there keeps its key: it is made only once.

    Raises:
        SlmxError: Both models of each pair wrote the same, or the folder has the key of other endings.
    """
    if (folder / KEY).exists():
        key = Key.read(folder)
        if key.sha256 != _hash(endings, pairs):
            raise SlmxError(f"{folder / KEY}: it belongs to a sheet of other endings; give another --out")
        return key
    key = Key.make(endings, pairs)
    if not key.questions:
        raise SlmxError("the models wrote the same endings, so there is nothing to rate; compare others with --against")
    key.save(folder)
    return key


def _digest(content: dict[str, Any]) -> str:
    return sha256_of_bytes(json.dumps(content, sort_keys=True).encode())


def _hash(endings: Endings, pairs: Sequence[tuple[str, str]]) -> str:
    names = sorted({name for pair in pairs for name in pair})
    content = [list(map(list, pairs)), [[asdict(ending) for ending in endings[name]] for name in names]]
    return sha256_of_bytes(json.dumps(content).encode())


def _read(fields: Fields) -> Key:
    """Reads a key; ValueError if a value is missing or contradicts another one."""
    pairs = [_pair(pair) for pair in _list(fields, "pairs")]
    counts = Fields({str(number): count for number, count in enumerate(_list(fields, "same"))}, "same")
    same = tuple(counts.integer(number) for number in counts)
    questions = [
        Question(entry.text("id"), entry.integer("opening"), entry.text("a"), entry.text("b"))
        for entry in fields.objects("questions")
    ]
    if len(same) != len(pairs):
        raise ValueError(f"{len(pairs)} pairs, and same has {len(same)} numbers")
    if len({question.id for question in questions}) != len(questions):
        raise ValueError("a question is there twice")
    return Key(fields.text("sheet"), fields.sha256("sha256"), tuple(pairs), same, tuple(questions))


def _pair(value: object) -> tuple[str, str]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("a pair is not a list of two models")
    names = Fields(dict(zip(("one", "other"), value, strict=True)), "pairs")
    return names.text("one"), names.text("other")


def _list(fields: Fields, key: str) -> list[Any]:
    value = fields.value(key)
    if not isinstance(value, list):
        raise ValueError(f"{key} is not a list")
    return value
