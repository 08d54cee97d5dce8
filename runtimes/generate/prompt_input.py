"""Where `slmx generate` takes its prompt from: its words, a file, or standard input."""

from __future__ import annotations

import io
import os
import stat
import sys
import threading
from pathlib import Path

from runtimes.prompts_file.reader import LONGEST_LINE
from slm.console.errors import SlmxError, UsageError
from slm.console.notice import log_line
from slm.folder_kind import require_file

# Standard input that gives nothing for this many seconds is named, so that nobody wonders what the command waits for.
SILENT_SECONDS = 1.0
# A prompt is at most as long as a line of a file of prompts. No more is read, because a device or a pipe may not end.
MOST_READ = LONGEST_LINE + len(b"\r\n") + 1


def prompt_from(words: list[str], file: Path | None, piped: bool = True) -> str:
    """Returns the prompt. A line break at its end is removed.

    Args:
        words: The words of the command line, or `-` for standard input.
        file: A file with the prompt, or None.
        piped: Whether standard input is read, if it is a pipe or a file, when there are neither words nor a file.

    Raises:
        UsageError: There are words and a file.
        SlmxError: The file is a folder or a bundle, the text is not UTF-8 or too long, or standard input is closed.
    """
    prompt = " ".join(words)
    if file is not None:
        if prompt:
            raise UsageError("a prompt and --prompt-file exclude each other: drop one")
        require_file(file)
        with file.open("rb") as opened:
            content = opened.read(MOST_READ)
    elif prompt == "-" or (piped and not words and _is_piped()):
        content = _read_standard_input()
    else:
        return as_utf8(prompt)
    name = file or "standard input"
    content = content.removesuffix(b"\n").removesuffix(b"\r")
    if len(content) > LONGEST_LINE:
        raise SlmxError(f"{name}: the prompt is longer than {LONGEST_LINE:,} bytes; shorten it")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise SlmxError(f"{name}: not UTF-8 text; convert it to UTF-8") from None


def as_utf8(argument: str) -> str:
    """Reads an argument as UTF-8, whatever the locale made of its bytes. Other bytes become lone surrogates."""
    return os.fsencode(argument).decode("utf-8", "surrogateescape")


def standard_input(advice: str) -> io.TextIOWrapper:
    """Returns standard input. Its bytes that are not UTF-8 become lone surrogates.

    Args:
        advice: What to do if it is closed, for the message.

    Raises:
        SlmxError: It is closed.
    """
    if not isinstance(sys.stdin, io.TextIOWrapper):
        raise SlmxError(f"standard input is closed: {advice}")
    sys.stdin.reconfigure(errors="surrogateescape")
    return sys.stdin


def _is_piped() -> bool:
    """Returns whether standard input is a pipe or a file. A terminal, a socket and /dev/null are none."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):  # it is closed, or has no descriptor
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _read_standard_input() -> bytes:
    """Reads standard input to its end or to the limit, and says so if nothing has come for a while."""
    stream = standard_input("give the prompt as an argument or with --prompt-file")
    line = "reading the prompt from standard input; < /dev/null starts without a prompt"
    timer = threading.Timer(SILENT_SECONDS, log_line, [line])
    timer.daemon = True
    timer.start()
    try:
        return bytes(stream.buffer.read(MOST_READ))
    finally:
        timer.cancel()
