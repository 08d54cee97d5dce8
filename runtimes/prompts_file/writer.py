"""The file of stories. A row is there whole or not at all, also after a kill or on a full disk."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runtimes.prompts_file.record import SUFFIX, Position, Record, RunSettings, difference, encode_settings
from runtimes.requests.fields import LARGEST_SEED
from slm.console.counted import count_stories
from slm.console.errors import SlmxError
from slm.storage.disk import FULL, sync
from slm.storage.json_reader import Fields, parse_json

SYNC_SECONDS = 10.0
MAX_DEPTH = 8


@dataclass
class Done:
    """The rows of a file.

    Attributes:
        line: The number of the line of the last row; 0 if there is none.
        index: The index of the last row in its line.
        rows: The number of rows.
        failed: How many of them are errors.
        first_failed: The number of the line of the first error; 0 if there is none.
        bytes: Their length.
    """

    line: int = 0
    index: int = -1
    rows: int = 0
    failed: int = 0
    first_failed: int = 0
    bytes: int = 0

    def add(self, line: int, index: int, failed: bool, size: int) -> None:
        """Counts a row."""
        self.line, self.index = line, index
        self.rows += 1
        self.bytes += size
        self.failed += failed
        if failed and not self.first_failed:
            self.first_failed = line


@dataclass(frozen=True)
class Row:
    """A row to write: the line and the index of its story, its JSON, and whether it is an error."""

    line: int
    index: int
    content: bytes
    failed: bool


class StoriesFile:
    """The file of stories of a run, and its record. The caller has locked it.

    Args:
        path: The file. It is new, or it was written by a run with the same settings, which goes on.
        settings: The settings that the stories depend on. If `seed` is None, an earlier run's is taken, or else `seed`.
        seed: The seed of a new run that has none in its settings.
        force: Whether stories of another run are replaced.

    Attributes:
        done: The rows that are there.
        seed: The seed of the run.
        last: How far the input was read when the last rows were written; None in a new run.

    Raises:
        SlmxError: The file holds something else, also with `force`, or stories of another run.
        OSError: It cannot be read.
    """

    def __init__(self, path: Path, settings: RunSettings, seed: int, force: bool) -> None:
        self.path, self._force = path, force
        self._record_path = path.with_name(path.name + SUFFIX)
        self._refuse_foreign()
        record = Record.read(self._record_path) if path.exists() and not force else None
        if record is not None and settings["seed"] is None:
            settings = settings | {"seed": record.settings.get("seed")}
        if settings["seed"] is None:
            settings = settings | {"seed": seed}
        other = difference(record.settings, settings) if record is not None else None
        if other is not None:
            raise SlmxError(
                f"{path}: holds stories of another run: {other}; choose another --out, or add --force to begin anew"
            )
        self.seed = Fields(settings).integer("seed", most=LARGEST_SEED)
        self._settings = settings
        self.last = record.last if record is not None else None
        self._record_bytes = record.bytes if record is not None else 0
        self.done = Done() if self.last is None else self._scan(self.last.line)
        self._begun = self.last is not None
        self._descriptors: list[int] = []

    def _refuse_foreign(self) -> None:
        """Raises SlmxError if a file that slmx did not write would be replaced."""
        for file in (self.path, self._record_path):
            if file.exists() and not file.is_file():
                raise SlmxError(f"{file}: not a regular file; choose another --out")
        foreign = ""
        if self._record_path.exists() and not Record.begins(self._record_path):
            foreign = f"{self._record_path}: not the record of a run"
        elif _size(self.path) and not _size(self._record_path):
            foreign = f"{self.path}: exists already, without the record of a run"
        if foreign:
            raise SlmxError(f"{foreign}, and slmx never replaces such a file; choose another --out, or move it away")

    def _scan(self, most: int) -> Done:
        """Counts the rows of the lines up to `most`. What a kill or a power cut left after them is not counted."""
        done = Done()
        with self.path.open("rb") as file:
            for content in file:
                try:
                    fields = Fields(parse_json(content, MAX_DEPTH))
                    line, index = fields.integer("line"), fields.integer("index")
                    if (line, index) <= (done.line, done.index):
                        raise ValueError("its rows are not in order")
                    if not content.endswith(b"\n"):
                        raise ValueError("the last row has no end")
                except ValueError:
                    if file.read(1):
                        raise SlmxError(
                            f"{self.path}: row {done.rows + 1} is not one that slmx wrote; mend it, choose another "
                            "--out, or add --force to begin anew"
                        ) from None
                    break
                if line > most:
                    break
                done.add(line, index, "error" in fields, len(content))
        return done

    def open(self) -> None:
        """Opens the files. What is not counted in `done` is cut off, unless the run is new: see `begin`.

        Raises:
            SlmxError: The disk is full, or the folder cannot be written.
        """
        try:
            for path in (self._record_path, self.path):
                self._descriptors.append(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666))
            record, stories = self._descriptors
            if self._begun:
                os.ftruncate(record, self._record_bytes)
                os.ftruncate(stories, self.done.bytes)
        except OSError as error:
            raise self._unwritable(error) from error
        self._synced = time.monotonic()

    def begin(self) -> None:
        """Replaces the files of another run, if that has not been done. The first rows do it too.

        Raises:
            SlmxError: The disk is full or fails.
        """
        if self._begun:
            return
        record, stories = self._descriptors
        try:  # the old stories go first, so a kill never leaves them with a new record
            os.ftruncate(stories, 0)
            os.ftruncate(record, 0)
            self._begun = True
            self._record_bytes = _append(record, 0, encode_settings(self._settings))
            os.fsync(record)
            sync(self.path.parent)
        except OSError as error:
            raise self._unwritable(error) from error

    def write(self, rows: Sequence[Row], now: Position) -> None:
        """Appends rows. Those of another run are replaced now.

        Args:
            rows: The next rows, at least one.
            now: How far the input was read.

        Raises:
            SlmxError: The disk is full or fails. The rows before are kept.
        """
        self.begin()
        record, stories = self._descriptors
        try:
            if self.last is None or rows[-1].line > self.last.line:
                self._record_bytes = _append(record, self._record_bytes, now.encode())
                self.last = now
            _append(stories, self.done.bytes, b"".join(row.content for row in rows))
            for row in rows:
                self.done.add(row.line, row.index, row.failed, len(row.content))
            if time.monotonic() > self._synced + SYNC_SECONDS:
                self._sync()
        except OSError as error:
            raise self._unwritable(error) from error

    def _sync(self) -> None:
        for descriptor in self._descriptors:
            os.fsync(descriptor)
        self._synced = time.monotonic()

    def close(self) -> None:
        """Flushes the rows to the disk and closes the file. It may be called twice.

        Raises:
            SlmxError: The disk fails.
        """
        try:
            if self._begun and len(self._descriptors) == 2:  # both files are open
                os.ftruncate(self._descriptors[1], self.done.bytes)  # Ctrl-C can come while a row is written
                self._sync()
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            for descriptor in self._descriptors:
                os.close(descriptor)
            self._descriptors = []

    def kept(self) -> tuple[str, str]:
        """Returns in words what the file has after a run that did not end, and which command goes on."""
        if not self._begun and _size(self.path):
            return "the stories of the other run", "the same command"
        return count_stories(self.done.rows), f"the same command{' without --force' if self._force else ''}"

    def _unwritable(self, error: OSError) -> SlmxError:
        stories, command = self.kept()
        advice = "make room" if error.errno in FULL else "check the disk and its permissions"
        return SlmxError(
            f"{self.path}: cannot write ({error.strerror}); it keeps {stories}; {advice}, and {command} goes on"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _append(descriptor: int, position: int, content: bytes) -> int:
    """Writes at the end of a file, whose length is `position`. Returns the new length. An error changes nothing."""
    os.lseek(descriptor, position, os.SEEK_SET)
    rest = memoryview(content)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, position)
        raise
    return position + len(content)
