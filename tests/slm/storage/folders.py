"""Folders, writers and scripts for the tests of atomic folders."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slm.storage.atomic import atomic_folder
from slm.storage.listing import Listing, write_listing

LISTING = Listing("list.json", "files", unlisted=("extra",))


START = """
import os, signal, sys
from pathlib import Path
from slm.storage import atomic
from slm.storage.atomic import atomic_folder
from slm.console.errors import SlmxError
from slm.storage.locks import Place, lock_folder
from slm.storage.listing import Listing, write_listing
from slm.storage.ownership import foreign_file
LISTING = Listing("list.json", "files")
target = Path(sys.argv[1])
def replace(text):
    with atomic_folder(target, LISTING, replace=True) as folder:
        (folder / "a").write_text(text)
        (folder / "b").mkdir()
        (folder / "b" / "c").write_text(text)
        (folder / ("d" + text)).mkdir()
        (folder / ("d" + text) / "e").write_text(text)
        write_listing(folder, LISTING)
"""


WRITER = (
    START
    + """
with lock_folder(target):
    print("locked", flush=True)
    sys.stdin.read()
"""
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder whose name has special characters."""
    home = tmp_path / "Zoë's 50% #1"
    home.mkdir()
    return home


@pytest.fixture
def target(home: Path) -> Path:
    """A folder that slmx made, with one file and its listing, alone in its own folder."""
    target = home / "out é"
    target.mkdir()
    (target / "a").write_text("1")
    write_listing(target, LISTING)
    return target


def below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)
    write_listing(folder, LISTING)


def replace_it(target: Path, error: BaseException | None = None) -> None:
    with atomic_folder(target, LISTING, replace=True) as folder:
        write(folder, b="2")
        if error is not None:
            raise error


def run(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=120)


@pytest.fixture
def writer(target: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the target."""
    command = [sys.executable, "-c", WRITER, str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()
