"""`slmx serve` in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.waiting import PATIENCE, wait_until

KEYS = ("SLMX_API_KEY", "OTHER_KEY")


class Process:
    """A server in a process of its own, and what it wrote.

    Attributes:
        url: What it printed.
        process: The process.
        errors: The file to which its stderr goes.
    """

    def __init__(self, url: str, process: subprocess.Popen[str], errors: Path) -> None:
        self.url = url
        self.process = process
        self.errors = errors

    def told(self) -> str:
        """Returns what it wrote to stderr so far."""
        return self.errors.read_text("utf-8")

    def end(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal, waits for the end and returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextmanager
def slmx_serve(folder: Path, *options: str, **variables: str) -> Iterator[Process]:
    """Runs `slmx serve --port 0` inside the block, in a folder, with environment variables."""
    environment = {name: value for name, value in os.environ.items() if name not in KEYS} | variables
    command = [sys.executable, "-m", "slm", "serve", "--port", "0", *options]
    errors = folder / "errors.txt"
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url, errors.read_text("utf-8")
        wait_until(lambda: is_up(url))
        yield Process(url, process, errors)
    finally:
        process.kill()
        process.communicate()


def is_up(url: str) -> bool:
    """Whether a server answers."""
    try:
        return httpx.get(f"{url}/healthz", timeout=PATIENCE).status_code == 200
    except httpx.TransportError:
        return False
