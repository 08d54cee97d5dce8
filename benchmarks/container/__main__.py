"""Assembles the container of docs/server and tries it, without a container engine: python -m benchmarks.container."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import typer

from benchmarks.child import ROOT, output_of
from benchmarks.container.containerfile import Stage, read_stages
from benchmarks.container.image import assemble, beside_command, compressed_size, start_command
from benchmarks.program import run
from slm.console.errors import SlmxError

FILE = ROOT / "docs" / "server" / "Containerfile"
MOST_BYTES = 120_000_000
STARTED, ENDED = 60.0, 60.0  # most seconds to the first answer, and from SIGTERM to the end
ASK = """
import json, os, urllib.request
body = json.dumps({"prompt": "Once upon a time", "max_tokens": 16, "temperature": 0}).encode()
headers = {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["SLMX_API_KEY"]}
request = urllib.request.Request("http://127.0.0.1:8000/v1/completions", body, headers)
print(json.load(urllib.request.urlopen(request, timeout=60))["choices"][0]["text"])
"""


def main() -> None:
    """Make the root of docs/server/Containerfile, print its size, and start, ask and stop the server in it."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        raise SlmxError("only root can make the root of a container: run this as root, best on a machine to throw away")
    stages = read_stages(FILE.read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        root = assemble(stages, Path(folder))
        size, ours = compressed_size(root), compressed_size(root, "opt")
        typer.echo(
            f"compressed: {size / 1e6:.1f} MB with Debian, {ours / 1e6:.1f} MB of them /opt/slmx (tar and gzip -6)"
        )
        if size > MOST_BYTES:
            raise SlmxError(f"the container has more than {MOST_BYTES / 1e6:.0f} MB")
        _refuse_to_start(stages[-1], root)
        _serve(stages[-1], root)


def _refuse_to_start(stage: Stage, root: Path) -> None:
    """Checks that the server does not start without a key. All machines could ask it."""
    command = start_command(root, stage.texts("USER")[0], _whole_command(stage), stage.environment)
    ran = subprocess.run(command, capture_output=True, text=True, timeout=STARTED)
    if ran.returncode != 2 or "SLMX_API_KEY" not in ran.stderr:
        raise SlmxError(f"without a key: exit code {ran.returncode}, {ran.stderr.strip()[-200:]}")
    typer.echo(f"without a key: {ran.stderr.strip()}")


def _serve(stage: Stage, root: Path) -> None:
    """Starts the server, runs its HEALTHCHECK, asks for a story, and stops it."""
    (user,), key = stage.texts("USER"), secrets.token_hex(24)
    command = start_command(root, user, _whole_command(stage), {**stage.environment, "SLMX_API_KEY": key})
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            _wait(server, beside_command(root, user, server.pid, stage.array("HEALTHCHECK"), key))
            typer.echo("healthz: the HEALTHCHECK passes")
            ask = ["/opt/slmx/bin/python", "-c", ASK]
            told = output_of(beside_command(root, user, server.pid, ask, key), "a completion")
            typer.echo(f"completion: {told.strip()!r}")
            server.send_signal(signal.Signals[stage.texts("STOPSIGNAL")[0]])
            code = server.wait(ENDED)
        except (SlmxError, subprocess.TimeoutExpired) as error:
            log.seek(0)
            raise SlmxError(f"{error}; the server wrote: {log.read()[-500:]}") from None
        finally:
            server.kill()
    if code:
        raise SlmxError(f"exit code {code} after SIGTERM")
    typer.echo("SIGTERM: exit code 0")


def _whole_command(stage: Stage) -> list[str]:
    return [*stage.array("ENTRYPOINT"), *stage.array("CMD")]


def _wait(server: subprocess.Popen[bytes], command: list[str]) -> None:
    deadline = time.monotonic() + STARTED
    while subprocess.run(command, capture_output=True).returncode:
        if server.poll() is not None or time.monotonic() > deadline:
            raise SlmxError("the server is not healthy")
        time.sleep(0.5)


if __name__ == "__main__":
    run(main)
