"""A reader of files that the fuzzing tries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from slm.console.errors import SlmxError

Read = Callable[[bytes], object]


@dataclass(frozen=True)
class Reader:
    """What reads a kind of file, and whole contents of it.

    Attributes:
        seeds: Whole contents.
        read: Reads a content: it returns, or it raises SlmxError.
        is_json: Whether the content is JSON or JSON lines.
        more: Further ways to read the same content. Each of them is tried after `read`, whatever that did.
    """

    seeds: list[bytes]
    read: Read
    is_json: bool = False
    more: list[Read] = field(default_factory=list)


# Makes a reader in an empty folder, in which it may write.
Make = Callable[[Path], Reader]


def at(path: Path, read: Callable[[], object]) -> Read:
    """Returns a reader that puts the content into a file first."""

    def written(content: bytes) -> object:
        path.write_bytes(content)
        return read()

    return written


def fault_of(reader: Reader, content: bytes) -> tuple[str, BaseException] | None:
    """Reads a content in every way.

    Returns:
        What was wrong in a few words, with the error; None if it was read, or refused in one line.
    """
    for read in (reader.read, *reader.more):
        try:
            read(content)
        except SlmxError as error:
            if len(str(error).splitlines()) != 1:
                return "a message that is not one line", error
        except Exception as error:
            return f"{type(error).__name__} instead of SlmxError", error
    return None
