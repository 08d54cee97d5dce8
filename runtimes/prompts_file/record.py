"""What a run keeps beside its stories, so that it can go on: its settings, and how far its input was read.

The file is JSON lines. The first line holds the settings. Each of the others holds a number of lines and their SHA-256.
It is written before the stories of these lines are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from runtimes.requests.fields import LARGEST_SEED
from slm.console.errors import SlmxError
from slm.storage.json_reader import Fields, parse_json

FORMAT = 1
SUFFIX = ".run"
BEGINNING = b'{"format": '
RunSettings = dict[str, object]


@dataclass(frozen=True)
class Position:
    """The lines of the input up to one of them: its number, and the SHA-256 of the lines of this run as far as it."""

    line: int
    sha256: str

    def encode(self) -> bytes:
        """Returns its line in the file."""
        return json.dumps({"line": self.line, "sha256": self.sha256}).encode() + b"\n"


@dataclass(frozen=True)
class Record:
    """The content of such a file.

    Attributes:
        settings: The settings of the run.
        last: The last position; None before the first.
        bytes: The length of the file without what a kill cut off.
    """

    settings: RunSettings
    last: Position | None
    bytes: int

    @staticmethod
    def begins(path: Path) -> bool:
        """Returns whether a file is empty or begins as a record, also as one of another version; OSError as `read`."""
        with path.open("rb") as file:
            return BEGINNING.startswith(file.read(len(BEGINNING)))  # a kill can leave a part

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """Returns the record in a file; None if there is no file, or no more than a part of its first line.

        Raises:
            SlmxError: The file holds something else.
            OSError: It cannot be read.
        """
        if not path.exists():
            return None
        settings, last, length = None, None, 0
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    fields = Fields(parse_json(line))
                    if settings is None:
                        fields.integer("format", FORMAT, FORMAT)
                        fields.integer("seed", most=LARGEST_SEED)
                        settings = {key: fields.value(key) for key in fields}
                    else:
                        last = Position(fields.integer("line"), fields.sha256("sha256"))
                except ValueError as error:
                    raise SlmxError(
                        f"{path}: not the record of a run ({error}); add --force to begin anew, or choose another --out"
                    ) from None
                length += len(line)
        return None if settings is None else cls(settings, last, length)


def encode_settings(settings: RunSettings) -> bytes:
    """Returns the first line of a record."""
    return json.dumps({"format": FORMAT, **settings}).encode() + b"\n"


def difference(before: RunSettings, now: RunSettings) -> str | None:
    """Returns in words the first setting that is not the same; None if there is none."""
    for key in (*now, *(key for key in before if key not in now and key != "format")):
        old, new = (json.dumps(side.get(key), ensure_ascii=True) for side in (before, now))
        if old != new:
            return f"its {key.replace('_', ' ')} was {old[:60]}, now {new[:60]}"
    return None
