"""A hub on this machine, and `slmx` in a process of its own that uses it with the real `huggingface_hub`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from runtimes.bundle.location import SHIPPED_BUNDLES
from slm.storage.hashing import sha256_of
from tests.bundles import copy_of, edit_manifest, snapshot
from tests.error_lines import said
from tests.runtimes.hub.hub_server import Files, Hub, running_hub

NANO, MICRO = SHIPPED_BUNDLES / "nano", SHIPPED_BUNDLES / "micro"
MODEL = "onnx/model_int8.onnx"
LARGE = "numbers.bin"
NAME = "someone/tales"
RUN = "from slm.cli import main; main()"
# Variables of the user who runs the tests must not change what the client does.
OF_THE_USER = ("HF_", "HUGGING", "XDG_")


def with_large_file(bundle: Path, target: Path) -> Files:
    """The files of a bundle with one of 25 MB, which the client writes in pieces of 10 MiB."""
    copy = copy_of(bundle, target)
    (copy / LARGE).write_bytes(bytes(range(250)) * 100_000)
    files = json.loads((copy / "manifest.json").read_text("utf-8"))["files"]
    entry = {"what": "numbers", "bytes": 25_000_000, "sha256": sha256_of(copy / LARGE)}
    edit_manifest(copy, files=files | {LARGE: entry})
    return files_of(copy)


def files_of(bundle: Path) -> Files:
    """The content of every file of a bundle."""
    return {path.relative_to(bundle).as_posix(): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}


class Client:
    """Runs `slmx` with an empty home folder and an empty cache, in the folder `here`."""

    def __init__(self, hub: Hub, home: Path) -> None:
        self.hub = hub
        self.here = home / "here"
        self.data = home / "data"
        self.cache = home / "cache"
        self.here.mkdir()
        self.env = {
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(self.cache),
            "HF_HUB_DISABLE_XET": "1",
            "XDG_DATA_HOME": str(self.data),
        }

    @property
    def pulled(self) -> Path:
        """Where `slmx pull someone/tales` puts the bundle."""
        return self.data / "slmx" / "bundles" / NAME

    @property
    def record(self) -> dict[str, Any]:
        """The record of where it came from."""
        path = self.pulled.with_name(f".{self.pulled.name}.pulled.json")
        values = json.loads(path.read_text("utf-8"))
        assert isinstance(values, dict)
        return values

    def run(self, *args: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        """Runs a command."""
        from tests.conftest import run_slmx  # which loads this module

        return run_slmx(*args, cwd=self.here, env=self.env | env)

    def works(self, *args: str | Path, **env: str) -> list[str]:
        """Runs a command that must succeed; returns its lines on stderr."""
        ran = self.run(*args, **env)
        assert ran.returncode == 0, ran.stderr
        return ran.stderr.splitlines()

    def refuses(self, *args: str | Path, **env: str) -> str:
        """Runs a command that must fail with one line and leave nothing outside of the cache; returns that line."""
        return self._fails(1, args, env)

    def misused(self, *args: str | Path, **env: str) -> str:
        """As `refuses`, for a command that no run can take."""
        return self._fails(2, args, env)

    def _fails(self, code: int, args: Sequence[str | Path], env: Mapping[str, str]) -> str:
        before, folders = snapshot(self.here) | snapshot(self.data), set(self.data.rglob("*"))
        ran = self.run(*args, **env)
        assert (ran.returncode, ran.stdout) == (code, ""), ran.stderr
        assert snapshot(self.here) | snapshot(self.data) == before
        assert set(self.data.rglob("*")) == folders
        (line,) = ran.stderr.splitlines()
        return said(line, code)

    def start(self, *args: str | Path, **env: str) -> subprocess.Popen[str]:
        """Starts a command."""
        return self.python([RUN, *map(str, args)], env)

    def python(
        self, args: Sequence[str], env: Mapping[str, str] | None = None, stderr: int = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        """Starts Python with code and its arguments."""
        return subprocess.Popen(
            [sys.executable, "-c", *args],
            cwd=self.here,
            env={**os.environ, **self.env, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub with someone/tales, which is the shipped nano."""
    pytest.importorskip("huggingface_hub", reason="needs the extra [hub]")
    with running_hub() as hub:
        hub.add(NAME, files_of(NANO))
        yield hub


@pytest.fixture
def client(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    """The command with this hub, without a login."""
    for name in [name for name in os.environ if name.startswith(OF_THE_USER)]:
        monkeypatch.delenv(name)
    return Client(hub, tmp_path)
