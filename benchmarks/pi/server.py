"""Asks `slmx serve` on an emulated Raspberry Pi for one completion."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.pi.machine import Machine
from slm.console.errors import SlmxError

STARTED, ENDED = 120.0, 60.0  # most seconds to the first answer, and from SIGTERM to the end
TOKENS = 16


def ask_server(machine: Machine, cpu: str, bundle: Path, prompt: str) -> str:
    """Starts the server, asks it once, and stops it.

    Args:
        machine: The emulated machine.
        cpu: qemu's name of the processor.
        bundle: The bundle to serve.
        prompt: How the story begins.

    Returns:
        What was seen, in one line.

    Raises:
        SlmxError: The server does not answer, or does not end.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = machine.slmx(cpu, "serve", str(bundle), "--port", str(port))
    with subprocess.Popen(
        command, env=machine.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            address = f"http://127.0.0.1:{port}/v1"
            _wait(server, f"{address}/models")
            text = _complete(f"{address}/completions", prompt)
            server.send_signal(signal.SIGTERM)
            code = server.wait(ENDED)
        except (OSError, KeyError, ValueError, subprocess.TimeoutExpired) as error:
            raise SlmxError(f"slmx serve: {type(error).__name__}: {error}") from None
        finally:
            server.kill()
    if not text:
        raise SlmxError("slmx serve: an empty story")
    if code:
        raise SlmxError(f"slmx serve: exit code {code} after SIGTERM")
    return f"{len(text)} characters"


def _wait(server: subprocess.Popen[str], address: str) -> None:
    deadline = time.monotonic() + STARTED
    while time.monotonic() < deadline:
        if server.poll() is not None:
            assert server.stderr is not None
            raise OSError(f"it ended: {server.stderr.read().strip()[-200:]}")
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except urllib.error.HTTPError:
            raise
        except OSError:
            time.sleep(0.5)
    raise OSError(f"no answer in {STARTED:.0f} s")


def _complete(address: str, prompt: str) -> str:
    wanted = json.dumps({"prompt": prompt, "max_tokens": TOKENS, "temperature": 0}).encode()
    request = urllib.request.Request(address, wanted, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=STARTED) as reply:
        return str(json.load(reply)["choices"][0]["text"])
