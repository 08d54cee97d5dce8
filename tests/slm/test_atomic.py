"""Folders appear whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from slm.atomic import atomic_folder
from slm.errors import SlmxError

DISK_FULL = """
import resource, sys
from pathlib import Path
from slm.errors import SlmxError
from slm.atomic import atomic_folder
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with atomic_folder(Path(sys.argv[1]), replace=True) as folder:
        (folder / "small").write_bytes(b"x" * 500)
        (folder / "big").write_bytes(b"x" * 5000)
except SlmxError as error:
    print(error)
"""
KILLED = """
import os, signal, sys
from pathlib import Path
from slm.atomic import atomic_folder
with atomic_folder(Path(sys.argv[1]), replace=True) as folder:
    (folder / "b").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A folder `out` with a file in it, alone in its own folder."""
    target = tmp_path / "out"
    target.mkdir()
    (target / "a").write_text("1")
    return target


def below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def replace_it(target: Path, error: BaseException | None = None) -> None:
    with atomic_folder(target, replace=True) as folder:
        (folder / "b").write_text("2")
        assert not target.exists() or below(target) == ["a"]
        if error is not None:
            raise error


def test_a_folder_appears_whole_and_where_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for target in (tmp_path / "deep" / "down" / "out", Path("relative")):
        with atomic_folder(target, replace=False) as folder:
            (folder / "a").write_text("1")
            assert not target.exists()
            assert target.parent.absolute() in folder.parents, "a rename works within one file system"
        assert (target / "a").read_text() == "1"
    assert below(tmp_path) == ["deep", "deep/down", "deep/down/out", "deep/down/out/a", "relative", "relative/a"]


def test_an_empty_folder_is_filled_and_a_full_one_replaced_on_demand(target: Path) -> None:
    replace_it(target)
    assert below(target.parent) == ["out", "out/b"]
    (target / "b").unlink()
    with atomic_folder(target, replace=False) as folder:
        (folder / "c").write_text("3")
    assert below(target.parent) == ["out", "out/c"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x"), SlmxError("x"), OSError("x")])
def test_a_failure_leaves_what_was_there(target: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        replace_it(target, error)
    assert caught.value is error
    assert below(target.parent) == ["out", "out/a"]
    with pytest.raises(type(error)):
        replace_it(target.parent / "new", error)
    assert below(target.parent) == ["out", "out/a"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("x")])
def test_a_failure_while_names_change_brings_the_old_back(
    target: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def second_fails(self: Path, to: Path) -> Path:
        if self.name == "new":
            raise error
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(type(error)):
        replace_it(target)
    assert below(target.parent) == ["out", "out/a"]


def test_a_killed_process_leaves_what_was_there(target: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", KILLED, str(target)], capture_output=True, check=False)
    assert ran.returncode < 0
    assert below(target) == ["a"]
    replace_it(target)
    assert below(target) == ["b"]


def test_what_stands_in_the_way_is_kept(target: Path) -> None:
    file = target / "a"
    ways = {
        target: "not empty.*--force",
        file: "a file stands",
        file / "out": "cannot write",
        file / "deep" / "out": "cannot write",
    }
    for where, said in ways.items():
        with pytest.raises(SlmxError, match=said) as caught, atomic_folder(where, replace=False):
            pytest.fail("the work was begun")
        assert str(caught.value).startswith(f"{where}: ")
    with pytest.raises(SlmxError, match="a file stands"):
        replace_it(file)
    assert below(target.parent) == ["out", "out/a"]
    assert file.read_text() == "1"


def test_a_name_that_no_folder_can_have_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SlmxError, match="cannot write"):
        replace_it(tmp_path / ("x" * 300))
    assert below(tmp_path) == []


def test_a_full_disk_is_one_line_and_leaves_the_old(target: Path) -> None:
    for where in (target, target.parent / "new"):
        ran = subprocess.run(
            [sys.executable, "-c", DISK_FULL, str(where)], capture_output=True, encoding="utf-8", check=True
        )
        assert ran.stdout == f"{where}: cannot write (File too large); nothing was changed there\n"
        assert ran.stderr == ""
        assert below(target.parent) == ["out", "out/a"]


def test_the_folder_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        replace_it(tmp_path / "out")
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755
