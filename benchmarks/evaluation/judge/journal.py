"""Every answer of the judge, in a file that survives a stop at any moment."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from benchmarks.evaluation.judge.rubric import AXES, LEAST, MOST
from slm.console.errors import SlmxError
from slm.storage.disk import sync, write_errors
from slm.storage.json_reader import Fields, parse_json
from slm.storage.read_errors import unreadable

JOURNAL = "judge.jsonl"
ATTEMPTS = 2  # answers without scores, after which an ending has none
MAX_BYTES = 2**30
BEGINS = b'{"settings": {'
Scores = dict[str, int]


@dataclass
class Asked:
    """What was answered about one ending.

    Attributes:
        answers: The number of answers.
        scores: The scores; None while no answer has them.
    """

    answers: int = 0
    scores: Scores | None = None

    @property
    def done(self) -> bool:
        """Whether no more is asked."""
        return self.scores is not None or self.answers >= ATTEMPTS


@dataclass
class Journal:
    """The answers, as a context manager that holds the file open.

    The first line has the settings, every other line one answer. A line that a stop has cut off is removed. The
    settings of a journal without answers are replaced.

    Args:
        path: The file. It is made if it is not there.
        settings: What the answers depend on.

    Raises:
        SlmxError: The file has answers of other settings, is not such a file, or cannot be read.
        WriteError: It cannot be written.
    """

    path: Path
    settings: dict[str, str]
    asked: dict[str, Asked] = field(default_factory=dict)
    tokens: list[int] = field(default_factory=lambda: [0, 0])

    def __post_init__(self) -> None:
        try:
            kept = self._read()
        except OSError as error:
            raise unreadable(self.path, error) from None
        with write_errors(self.path):
            self._file: BinaryIO = self.path.open("ab")
            self._file.truncate(kept)
        if not kept:
            self._append({"settings": self.settings})
            sync(self.path.parent)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._file.close()

    def of(self, key: str) -> Asked:
        """Returns what was answered about an ending."""
        return self.asked.get(key, Asked())

    def add(self, key: str, raw: str, scores: Scores | None, why: str | None, tokens: tuple[int, int]) -> None:
        """Keeps an answer.

        Args:
            key: The ending.
            raw: The body of the response.
            scores: The scores; None if the answer is nonsense.
            why: What is wrong with it.
            tokens: Tokens of the request and of the answer.
        """
        counts = dict(zip(("in", "out"), tokens, strict=True))
        self._append({"ending": key, "scores": scores, "wrong": why, "tokens": counts, "raw": raw})
        self._count(key, scores, tokens)

    def _append(self, line: dict[str, Any]) -> None:
        with write_errors(self.path):
            self._file.write(json.dumps(line, ensure_ascii=True).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def _count(self, key: str, scores: Scores | None, tokens: tuple[int, int]) -> None:
        asked = self.asked.setdefault(key, Asked())
        asked.answers += 1
        asked.scores = scores if asked.scores is None else asked.scores
        self.tokens = [before + more for before, more in zip(self.tokens, tokens, strict=True)]

    def _read(self) -> int:
        """Reads what is there; returns the length of its whole lines."""
        if not self.path.exists():
            return 0
        if self.path.stat().st_size > MAX_BYTES:
            raise SlmxError(f"{self.path}: more than {MAX_BYTES:,} bytes; give another --out")
        *lines, rest = self.path.read_bytes().split(b"\n")
        if not lines and not rest.startswith(BEGINS[: len(rest)]):
            raise SlmxError(f"{self.path}: not the answers of a judge; give another --out")
        if len(lines) == 1 and lines[0].startswith(BEGINS):
            return 0  # nothing is answered, so the settings may be others
        for number, line in enumerate(lines, 1):
            try:
                fields = Fields(parse_json(line))
                if number == 1:
                    self._compare(fields.object("settings"))
                else:
                    self._count(fields.text("ending"), _scores(fields), _tokens(fields))
            except ValueError as error:
                raise SlmxError(f"{self.path}: line {number}: {error}; give another --out") from None
        return sum(map(len, lines)) + len(lines)

    def _compare(self, before: Fields) -> None:
        changed = [name for name, value in self.settings.items() if before.text(name) != value]
        if changed:
            raise SlmxError(f"{self.path}: made with another {', '.join(changed)}; give another --out")


def _scores(fields: Fields) -> Scores | None:
    inner = fields.optional("scores", fields.object)
    return None if inner is None else {axis: inner.integer(axis, LEAST, MOST) for axis in AXES}


def _tokens(fields: Fields) -> tuple[int, int]:
    inner = fields.object("tokens")
    return inner.integer("in"), inner.integer("out")
