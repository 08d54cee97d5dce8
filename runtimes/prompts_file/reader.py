"""Reads the lines of a file of prompts, or of standard input, and recognizes them when they are read again."""

from __future__ import annotations

import hashlib
import os
import queue
import re
import shutil
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO

from slm.console.errors import SlmxError, UsageError
from slm.folder_kind import require_file
from slm.storage.json_reader import parse_json
from slm.storage.wide_text import wide_text

STANDARD_INPUT = Path("-")
LONGEST_LINE = 2**20  # bytes
ENDLESS_LINE = 2**30  # bytes after which a pipe or a device such as /dev/zero is taken for one that has no line breaks
WAITING_LINES = 64  # of a pipe
CHUNK = 2**18
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
TEXT_SUFFIXES, JSON_SUFFIXES = (".txt",), (".jsonl", ".ndjson")


@dataclass(frozen=True)
class Shard:
    """One of several parts of a file. The parts are runs of lines of nearly equal length, in the order of the file.

    Attributes:
        number: Which part, from 1.
        count: The number of parts.
    """

    number: int
    count: int

    @classmethod
    def read(cls, text: str) -> Shard:
        """Reads `I/N`; UsageError if it is something else."""
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"--shard takes I/N, such as 1/4 for the first of four parts, not {ascii(text)[:40]}")
        return cls(int(match[1]), int(match[2]))

    def part_of(self, lines: int) -> tuple[int, int]:
        """Returns the number of lines before this part, and that before the next part."""
        return lines * (self.number - 1) // self.count, lines * self.number // self.count


@dataclass(frozen=True)
class Line:
    """A line of the input: its number from 1, and its bytes without the line break.

    A line of more than `LONGEST_LINE` bytes is cut, but it stays longer than that.
    """

    number: int
    content: bytes

    @property
    def is_blank(self) -> bool:
        """Whether it holds white space only."""
        return not self.content.strip()


class PromptsReader:
    """The lines of one input, in order.

    The lines of a file are read when they are taken. A thread reads those of a pipe, so the stories go on while no line
    comes.

    Args:
        path: The file; `-` is standard input.
        shard: The part to read; a pipe is then first copied to a temporary file. None reads all lines.
        folder: Where this temporary file is made. It has no name there.

    Attributes:
        name: The name of the input, for messages.
        is_json: Whether each line is JSON; else it is a prompt.
        is_empty: Whether it has no line, not even a blank one.
        start: The number of lines before the first one.
        stop: The number of the last line; None if it is not known yet.
        taken: The number of the last line that was taken.

    Raises:
        OSError: The input cannot be read.
        SlmxError: Standard input is closed, the input is UTF-16, or it has no line breaks and does not end.
    """

    def __init__(self, path: Path, shard: Shard | None, folder: Path) -> None:
        self.name = "standard input" if path == STANDARD_INPUT else str(path)
        self.start, self.stop = 0, None
        self._file = file = _open(path)
        regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        if shard is not None and not regular:
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # `close` closes it
            with file:
                shutil.copyfileobj(file, self._file)
            self._file.seek(0)
            file, regular = self._file, True
        if regular:
            before = file.tell()
            total = _count_lines(file)
            file.seek(before)
            self.start, self.stop = (0, total) if shard is None else shard.part_of(total)
        first = self._read_line()
        if (wide := wide_text(first)) is not None:
            raise SlmxError(f"{self.name}: {wide}")
        self.is_empty = not first
        self.is_json = path.suffix in JSON_SUFFIXES or (path.suffix not in TEXT_SUFFIXES and _looks_like_json(first))
        self.taken = self.start
        self._digest = hashlib.sha256()
        lines = chain([first] if first else [], iter(self._read_line, b""))
        for _ in range(self.start):
            next(lines, None)
        self._ahead = None if regular else _Ahead(lines)
        self._lines = lines

    def close(self) -> None:
        """Closes the input. A pipe stays open, because a thread may be reading it."""
        if self._ahead is None:
            self._file.close()

    def take(self, wait: bool = True) -> Line | None:
        """Takes the next line.

        Args:
            wait: Whether to wait for a line of a pipe.

        Returns:
            The line; None if there is none, or none yet.

        Raises:
            OSError: The input cannot be read.
            SlmxError: The input has no line breaks and does not end.
        """
        if self.taken == self.stop:
            return None
        if self._ahead is None:
            content = next(self._lines, b"")
        else:
            found = self._ahead.take(wait)
            if found is None:
                return None
            content = found
        if not content:
            self.stop = self.taken
            return None
        content = content.removesuffix(b"\n").removesuffix(b"\r")
        self._digest.update(content + b"\n")
        self.taken += 1
        return Line(self.taken, content.removeprefix(BYTE_ORDER_MARK) if self.taken == 1 else content)

    def _read_line(self) -> bytes:
        """Returns a line with its line break; nothing at the end. The rest of a line that is too long is left out."""
        line = part = self._file.readline(LONGEST_LINE + 2)
        length = len(part)
        while part and not part.endswith(b"\n"):
            part = self._file.readline(CHUNK)
            length += len(part)
            if length > ENDLESS_LINE:
                raise SlmxError(
                    f"{self.name}: has a line of more than {ENDLESS_LINE:,} bytes; put each prompt on its own line"
                )
        return line

    @property
    def sha256(self) -> str:
        """The SHA-256 of all lines that were taken."""
        return self._digest.hexdigest()


class _Ahead:
    """Reads the lines of a pipe in a thread. The thread ends with the process."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self._found: queue.Queue[bytes | Exception] = queue.Queue(WAITING_LINES)
        threading.Thread(target=self._read, name="prompts", daemon=True).start()

    def _read(self) -> None:
        try:
            for line in self._lines:
                self._found.put(line)
        except Exception as error:
            self._found.put(error)
        else:
            self._found.put(b"")

    def take(self, wait: bool) -> bytes | None:
        """Returns a line, nothing at the end, or None if there is no line yet; raises what the thread raised."""
        try:
            found = self._found.get(wait)
        except queue.Empty:
            return None
        if isinstance(found, Exception):
            raise found
        return found


def is_input(prompts: Path, path: Path) -> bool:
    """Returns whether a path is the same file as the input, also by another name of it or by a link."""
    try:
        found = os.fstat(sys.stdin.fileno()) if prompts == STANDARD_INPUT else prompts.stat()
        return stat.S_ISREG(found.st_mode) and os.path.samestat(found, path.stat())
    except (AttributeError, OSError, ValueError):  # one is missing, or standard input is closed
        return False


def _open(path: Path) -> IO[bytes]:
    if path != STANDARD_INPUT:
        require_file(path)
        return path.open("rb")
    if sys.stdin is None or sys.stdin.closed:
        raise SlmxError("standard input is closed: give --prompts a file")
    # Not sys.stdin.buffer: Python locks it when the process ends, and a thread may still be reading.
    return open(sys.stdin.fileno(), "rb", closefd=False)


def _count_lines(file: IO[bytes]) -> int:
    lines, last = 0, b"\n"
    while chunk := file.read(CHUNK):
        lines, last = lines + chunk.count(b"\n"), chunk[-1:]
    return lines + (last != b"\n")


def _looks_like_json(line: bytes) -> bool:
    """Returns whether a line is an object, also one with a mistake, or a JSON string."""
    line = line.removeprefix(BYTE_ORDER_MARK).strip()
    if not line.startswith(b'"'):
        return line.startswith(b"{")
    try:
        return isinstance(parse_json(line), str)
    except ValueError:
        return False
