"""Folders that cannot be renamed are filled file by file."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from slm.console.errors import SlmxError
from slm.storage import locks
from slm.storage.atomic import atomic_folder
from slm.storage.disk import WORK_NAME
from slm.storage.locks import Place, lock_folder
from slm.storage.ownership import foreign_file
from tests.slm.storage.folders import LISTING, START, below, replace_it, run, write

# Changes its user after it has loaded everything, because other users may not be able to read Python's folder.
NOBODY = """
import shutil, tempfile
target, real = Path(tempfile.mkdtemp()) / "x", target
replace("0")
shutil.rmtree(target.parent)
target = real
os.setuid(65534)
"""


def test_a_folder_that_cannot_be_renamed_is_filled_in_place(
    target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == target)
    (target / "lost+found").mkdir()
    (target / "extra").write_text("ours")
    inode = target.stat().st_ino
    way = "--force to replace it file by file, not in one step, because it is a mount point"
    with pytest.raises(SlmxError, match=way), atomic_folder(target, LISTING):
        pytest.fail("the work was begun")
    with pytest.raises(ValueError, match="x"):
        replace_it(target, ValueError("x"))
    assert below(target) == ["a", "extra", "list.json", "lost+found"]
    replace_it(target)
    assert below(target) == ["b", "list.json", "lost+found"]
    assert target.stat().st_ino == inode
    assert "its files are replaced one by one, not in one step, because it is a mount point" in capsys.readouterr().err
    assert foreign_file(target, LISTING) is None


def test_a_fill_that_fails_is_completed_by_the_next_writer(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == target)
    with monkeypatch.context() as patch:
        patch.setattr(locks, "sync", lambda path: (_ for _ in ()).throw(OSError(errno.EIO, "x")))
        with pytest.raises(SlmxError, match="it is incomplete, and the files that it lacks are in"):
            replace_it(target)
    assert not (target / "list.json").exists(), "it must not look whole"
    with lock_folder(target):
        assert below(target)[-2:] == ["b", "list.json"]
    assert below(target) == ["b", "list.json"]


def test_the_listing_goes_first_and_comes_last(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == target)
    replace = os.replace

    def stops_at_z(one: Path, other: Path) -> None:
        if Path(other) == target / "z":
            raise OSError(errno.EIO, "x")
        replace(one, other)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stops_at_z)
        with (
            pytest.raises(SlmxError, match="it is incomplete"),
            atomic_folder(target, LISTING, replace=True) as folder,
        ):
            write(folder, b="2", z="2")
    assert "list.json" not in os.listdir(target)
    with lock_folder(target):
        pass
    assert below(target) == ["b", "list.json", "z"]


def test_after_a_fill_a_folder_that_fails_is_not_filled_in(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == target)
    with lock_folder(target):
        replace_it(target)
        before = (target / "list.json").read_text()
        with (  # noqa: PT012
            pytest.raises(ValueError, match="x"),
            atomic_folder(target, LISTING, replace=True) as folder,
        ):
            write(folder, b="3", z="3")
            raise ValueError("x")
    assert below(target) == ["b", "list.json"]
    assert (target / "list.json").read_text() == before


def test_what_comes_while_a_folder_in_place_is_built_is_kept(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == target)
    with (  # noqa: PT012
        pytest.raises(SlmxError, match=r"b was not made by slmx"),
        atomic_folder(target, LISTING, replace=True) as folder,
    ):
        write(folder, b="2")
        (target / "b").write_text("mine")
    assert (target / "b").read_text() == "mine"
    assert below(target) == ["a", "b", "list.json"]


def test_the_working_folder_stays_the_working_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "here").mkdir()
    monkeypatch.chdir(home / "here")
    for name in ("b", "c"):
        with atomic_folder(Path("."), LISTING, replace=True) as folder:
            write(folder, **{name: "1"})
        assert sorted(os.listdir()) == [name, "list.json"]
    assert below(home) == ["here", "here/c", "here/list.json"]


def mounted(*arguments: str | Path) -> bool:
    try:
        return subprocess.run(["mount", *map(str, arguments)], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.parametrize("way", ["bind", "tmpfs"])
def test_a_mounted_folder_is_filled_in_place(target: Path, way: str) -> None:
    volume = target.parent / "volume é \\ # 1"
    volume.mkdir()
    if not mounted(*(["--bind", target] if way == "bind" else ["-t", "tmpfs", "none"]), volume):
        pytest.skip("this user or this system may not mount")
    try:
        assert Place.of(volume) == Place(volume, volume / WORK_NAME, "it is a mount point")
        for _ in range(2):
            replace_it(volume)
        assert below(volume) == ["b", "list.json"]
    finally:
        subprocess.run(["umount", str(volume)], check=True)


def test_a_folder_of_an_image_is_replaced_file_by_file(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    layers = [home / name for name in ("lower", "upper", "work", "top")]
    for layer in layers:
        layer.mkdir()
    lower, upper, work, top = (layer.name for layer in layers)
    for name in ("out", "empty"):
        (home / "lower" / name).mkdir()
    write(home / "lower" / "out", a="1")
    monkeypatch.chdir(home)
    if not mounted("-t", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", "none", top):
        pytest.skip("this user or this system may not mount an overlay")
    try:
        for name in ("out", "empty"):
            replace_it(home / "top" / name)
            assert below(home / "top" / name) == ["b", "list.json"]
        assert sorted(path.name for path in (home / "top").iterdir()) == ["empty", "out"]
    finally:
        subprocess.run(["umount", str(home / "top")], check=True)
    assert capfd.readouterr().err.count("because the system cannot rename it") == 1


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root may become another user")
def test_a_folder_in_a_parent_that_is_not_writable_is_filled_in_place() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        home = Path(name)
        target = home / "out é"
        target.mkdir()
        home.chmod(0o755)
        target.chmod(0o777)
        code = START + NOBODY + "replace('1')\nreplace('2')"
        ran = run(code, target)
        assert ran.returncode == 0, ran.stderr
        assert (target / "a").read_text() == "2"
        assert below(home) == [f"out é{path}" for path in ("", "/a", "/b", "/b/c", "/d2", "/d2/e", "/list.json")]
        assert "because the folder above is not writable" in ran.stderr
        target.chmod(0o755)
        ran = run(START + NOBODY + "try: replace('1')\nexcept SlmxError as error: print(error)", target)
        said = "nothing was changed there; check its permissions, or use another folder"
        assert ran.stdout == f"{target}: cannot write (Permission denied); {said}\n"
