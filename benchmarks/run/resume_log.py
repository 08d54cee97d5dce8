"""What a run has finished so far, a JSON line each, so that a stopped one goes on behind it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slm.errors import SlmxError


class Partial:
    """Values by key in a file that only grows; its first line holds the arguments that they belong to."""

    def __init__(self, path: Path, arguments: Mapping[str, Any], say: Callable[[str], None]) -> None:
        self._path = path
        self._values: dict[str, dict[str, Any]] = {}
        lines = _whole_lines(path)
        # Through JSON, so that tuples compare as the lists they come back as.
        first = json.loads(json.dumps({"arguments": arguments}))
        if lines and lines[0] == first:
            self._values = {line["key"]: line["value"] for line in lines[1:]}
            say(f"{path}: going on behind {len(self._values)} finished parts")
        elif lines:
            say(f"{path}: of other arguments, code or machine than now; starting anew")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = [first, *({"key": key, "value": value} for key, value in self._values.items())]
            path.write_text("".join(json.dumps(line) + "\n" for line in kept), "utf-8")
        except OSError as error:
            raise SlmxError(f"{path}: cannot write ({error.strerror}); choose another --out") from error

    def get(self, key: str) -> dict[str, Any] | None:
        """What was put there, by this run or the one it continues."""
        return self._values.get(key)

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Keep a value of which JSON can hold every part."""
        self._values[key] = value
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "value": value}) + "\n")

    def finish(self) -> None:
        """Forget everything: the run has reached its end, and the next one measures anew."""
        self._path.unlink()


def _whole_lines(path: Path) -> list[Any]:
    """The lines of the file up to one that a kill cut off."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found
