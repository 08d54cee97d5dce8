"""The log of the finished parts of a run, a line of JSON for each part, so that a stopped run can continue."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from benchmarks.report.typed_json import from_json
from slm.console.errors import SlmxError
from slm.console.notice import Log
from slm.storage.disk import write_advice, write_file
from slm.storage.json_reader import parse_json
from slm.storage.read_errors import reason_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")


class ResumeLog:
    """Values by key in a file. Its first line holds the arguments of the run, and further lines one value each.

    Call `open` first. The caller must make sure that no other process uses the file at the same time.

    Args:
        path: The file. A file of a run with the same arguments is continued. Any other file is replaced.
        arguments: Everything that the values depend on.
        log: Called with lines about what happens.
    """

    def __init__(self, path: Path, arguments: Mapping[str, Any], log: Log) -> None:
        self._path = path
        self._arguments = arguments
        self._log = log
        self._values: dict[str, object] = {}

    def open(self) -> None:
        """Reads the file, and writes it again without an incomplete line.

        Raises:
            SlmxError: The file cannot be written.
        """
        lines = _whole_lines(self._path)
        # The round trip through JSON turns tuples into lists, as in the file.
        first = json.loads(json.dumps({"arguments": self._arguments}))
        if lines and lines[0] == first:
            entries = (line for line in lines[1:] if line.keys() == {"key", "value"})
            self._values = {entry["key"]: entry["value"] for entry in entries if isinstance(entry["key"], str)}
            self._log(f"{self._path}: continues after {len(self._values)} finished parts")
        elif lines:
            self._log(f"{self._path}: made with other arguments, code or machine; starts from the beginning")
        kept = [first, *({"key": key, "value": value} for key, value in self._values.items())]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_file(self._path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        except OSError as error:
            raise self._unwritable(error) from error

    def get(self, key: str, kind: type[T]) -> T | None:
        """Returns the dataclass for a key; None if there is none, or if the file holds something else."""
        try:
            return from_json(kind, self._values[key])
        except (KeyError, ValueError):
            return None

    def put(self, key: str, value: DataclassInstance) -> None:
        """Adds a value; SlmxError if it cannot be written."""
        self._values[key] = asdict(value)
        try:
            with self._path.open("a", encoding="utf-8", newline="\n") as file:
                file.write(json.dumps({"key": key, "value": self._values[key]}) + "\n")
        except OSError as error:
            raise self._unwritable(error) from error

    def finish(self) -> None:
        """Deletes the file. The next run measures everything again."""
        self._path.unlink(missing_ok=True)

    def _unwritable(self, error: OSError) -> SlmxError:
        return SlmxError(f"{self._path}: cannot write ({reason_of(error)}); {write_advice(error.errno)}")


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the lines before the first one that is not a JSON object. A kill can leave an incomplete last line."""
    try:
        content = path.read_bytes()
    except OSError:
        return []
    found: list[dict[str, Any]] = []
    for line in content.splitlines():
        try:
            value = parse_json(line)
        except ValueError:
            break
        if not isinstance(value, dict):
            break
        found.append(value)
    return found
