"""Starts servers as processes of their own, and reads what they use."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.child import not_started
from slm.console.errors import SlmxError

STARTED, ENDED = 60.0, 30.0  # most seconds until a server answers, and until it has ended
LOG_TAIL = 300  # characters


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        name: Its name in tables.
        port: Its port on 127.0.0.1.
        process: Its process.
        streams: Whether its streams tell how many tokens they had.
    """

    name: str
    port: int
    process: subprocess.Popen[bytes]
    streams: bool

    def cpu_seconds(self) -> float:
        """Returns the processor time that the process has used, as in proc(5)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> dict[str, int]:
        """Returns the resident bytes of the process: now (`VmRSS`) and at most (`VmHWM`)."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text("utf-8").splitlines()
        rows = dict(line.split(":", 1) for line in lines)
        return {name: int(rows[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM")}

    def descriptors(self) -> int:
        """Returns the number of open descriptors."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


def slmx_command(bundle: Path, variant: str) -> list[str]:
    """Returns the command of `slmx serve`, without its port."""
    return [sys.executable, "-m", "slm", "serve", str(bundle), "--variant", variant, "--port"]


def llama_server_command(program: Path, model: Path, slots: int, context: int, threads: int) -> list[str]:
    """Returns the command of llama.cpp's own server, without its port. Each slot has a whole context."""
    sizes = ["--parallel", str(slots), "--ctx-size", str(slots * context)]
    counts = ["--threads", str(threads), "--threads-batch", str(threads)]
    return [str(program), "--model", str(model), *sizes, *counts, "--no-webui", "--port"]


def llama_python_command(python: Path, model: Path, context: int, threads: int) -> list[str]:
    """Returns the command of llama-cpp-python's server, without its port. It writes one story at a time."""
    sizes = ["--n_ctx", str(context), "--n_threads", str(threads), "--n_threads_batch", str(threads)]
    return [str(python), "-m", "llama_cpp.server", "--model", str(model), *sizes, "--port"]


@contextmanager
def running(name: str, command: Sequence[str], folder: Path, streams: bool = True) -> Iterator[Server]:
    """Runs a server inside the block.

    Args:
        name: Its name in tables.
        command: Its command. A free port is added at the end.
        folder: The folder for its log.
        streams: Whether its streams tell how many tokens they had.

    Raises:
        SlmxError: It does not start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / f"{name.replace(' ', '-')}-{port}.log"
    with log.open("wb") as file:
        try:
            process = subprocess.Popen([*command, str(port)], stdout=file, stderr=file)
        except OSError as error:
            raise SlmxError(f"{name}: {not_started(command, error)}") from error
    server = Server(name, port, process, streams)
    try:
        _wait(server, log)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(ENDED)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(server: Server, log: Path) -> None:
    deadline = time.monotonic() + STARTED
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            tail = log.read_text("utf-8", "replace").strip()[-LOG_TAIL:]
            raise SlmxError(f"{server.name}: it ended with exit code {server.process.returncode}: {tail}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/v1/models", timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SlmxError(f"{server.name}: no answer in {STARTED:.0f} s")
