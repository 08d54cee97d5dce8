"""Folders appear whole or not at all, and nothing that slmx did not make is replaced."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import pytest

from slm.console.errors import SlmxError
from slm.storage import atomic
from slm.storage.atomic import atomic_folder, remove_folder
from slm.storage.disk import WORK_NAME, WriteError, atomic_file, write_file
from slm.storage.listing import write_listing
from slm.storage.ownership import foreign_file
from tests.slm.storage.folders import LISTING, below, replace_it, run, write


def test_a_folder_appears_whole_and_where_it_should(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    for target in (home / "deep" / "down" / "out", Path("relative")):
        with atomic_folder(target, LISTING) as folder:
            (folder / "a").write_text("1")
            assert not target.exists()
            assert target.parent.absolute() in folder.parents, "a rename works within one file system"
        assert (target / "a").read_text() == "1"
    assert below(home) == ["deep", "deep/down", "deep/down/out", "deep/down/out/a", "relative", "relative/a"]


def test_an_empty_folder_is_filled_and_a_full_one_replaced_on_demand(target: Path) -> None:
    replace_it(target)
    assert below(target.parent) == ["out é", "out é/b", "out é/list.json"]
    for path in target.iterdir():
        path.unlink()
    with atomic_folder(target, LISTING) as folder:
        write(folder, c="3")
    assert below(target) == ["c", "list.json"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x"), SlmxError("x"), OSError("x")])
def test_a_failure_leaves_what_was_there(target: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        replace_it(target, error)
    assert caught.value is error
    with pytest.raises(type(error)):
        replace_it(target.parent / "new", error)
    assert below(target.parent) == ["out é", "out é/a", "out é/list.json"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("x")])
def test_a_failure_between_two_renames_brings_the_old_back(
    target: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def second_fails(self: Path, to: Path) -> Path:
        if self.name == "new":
            raise error
        return rename(self, to)

    monkeypatch.setattr(atomic, "exchange", lambda *_: False)
    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(type(error)):
        replace_it(target)
    assert below(target.parent) == ["out é", "out é/a", "out é/list.json"]


def test_what_stands_in_the_way_is_kept(target: Path) -> None:
    file = target / "a"
    ways = {target: "not empty.*--force", file: "a file stands", file / "out": "cannot write"}
    for where, message in ways.items():
        with pytest.raises(SlmxError, match=message) as caught, atomic_folder(where, LISTING):
            pytest.fail("the work was begun")
        assert str(caught.value).startswith(f"{where}: ")
    assert below(target) == ["a", "list.json"]


@pytest.mark.parametrize("name", ["thesis.txt", "b/thesis.txt", "a"])
def test_a_foreign_or_changed_file_is_never_replaced(target: Path, name: str) -> None:
    (target / name).parent.mkdir(exist_ok=True)
    (target / name).write_text("mine")
    with pytest.raises(SlmxError, match=f"not empty: {name} was not made by slmx or was changed"):
        replace_it(target)
    assert (target / name).read_text() == "mine"
    (target / "list.json").write_text("{")
    with pytest.raises(SlmxError, match=r"list\.json does not list the files, .* move the folder away$"):
        replace_it(target)
    assert (target / name).read_text() == "mine"


def test_a_link_inside_is_foreign_and_an_unlisted_file_of_ours_is_not(target: Path) -> None:
    (target / "extra").write_text("ours")
    assert foreign_file(target, LISTING) is None
    (target / "link").symlink_to(target / "a")
    assert foreign_file(target, LISTING) == "link"
    (target / "link").unlink()
    (target / "a").rename(target.parent / "elsewhere")
    (target / "a").symlink_to(target.parent / "elsewhere")
    assert foreign_file(target, LISTING) == "a", "the link may be all that a user has of it"
    (target / "a").unlink()
    (target / "extra").unlink()
    os.mkfifo(target / "extra")
    assert foreign_file(target, LISTING) == "extra"


@pytest.mark.parametrize("replaces", [False, True])
@pytest.mark.parametrize("way", ["renameat2", "two renames"])
def test_what_comes_meanwhile_is_kept_and_so_is_the_new_folder(
    target: Path, replaces: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "two renames":
        monkeypatch.setattr(atomic, "exchange", lambda *_: False)
    where = target if replaces else target.parent / "late"
    with (  # noqa: PT012
        pytest.raises(SlmxError, match=r"another program wrote there meanwhile; the new folder is .*-1"),
        atomic_folder(where, LISTING, replace=True) as folder,
    ):
        write(folder, b="2")
        where.mkdir(exist_ok=True)
        (where / "notes.txt").write_text("mine")
    assert (where / "notes.txt").read_text() == "mine"
    assert (where.with_name(where.name + "-1") / "b").read_text() == "2"


def test_a_link_stays_a_link_and_its_target_is_filled(target: Path) -> None:
    link = target.parent / "link"
    link.symlink_to(target)
    replace_it(link)
    assert link.is_symlink()
    assert below(target) == ["b", "list.json"]


def test_what_comes_between_two_renames_is_kept_with_both_folders(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def meanwhile(self: Path, to: Path) -> Path:
        renamed = rename(self, to)
        if Path(to).name == "old":
            target.mkdir()
            (target / "notes.txt").write_text("mine")
        return renamed

    monkeypatch.setattr(atomic, "exchange", lambda *_: False)
    monkeypatch.setattr(Path, "rename", meanwhile)
    with pytest.raises(SlmxError, match=r"the new folder is .*-2 and the earlier folder is .*-1; nothing was deleted"):
        replace_it(target)
    assert below(target) == ["notes.txt"]
    assert below(target.with_name("out é-1")) == ["a", "list.json"]
    assert below(target.with_name("out é-2")) == ["b", "list.json"]


def test_a_name_that_no_folder_can_have_is_one_line(home: Path) -> None:
    with pytest.raises(SlmxError, match="cannot write"):
        replace_it(home / ("x" * 300))
    (home / "circle").symlink_to(home / "circle")
    with pytest.raises(SlmxError, match=r"cannot write|a file stands"):
        replace_it(home / "circle")
    assert below(home) == ["circle"]


def test_the_folder_has_the_permissions_of_any_other(home: Path) -> None:
    before = os.umask(0o022)
    try:
        replace_it(home / "out")
        write_file(home / "file", b"1")
    finally:
        os.umask(before)
    assert (home / "out").stat().st_mode & 0o777 == 0o755
    assert (home / "file").stat().st_mode & 0o777 == 0o644


def test_a_file_is_replaced_whole_or_not_at_all(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = home / "a.json"
    path.write_bytes(b"old")
    path.chmod(0o600)

    def fails(*_: object) -> None:
        raise OSError("x")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fails)
        with pytest.raises(OSError, match="x"):
            write_file(path, b"new")
    assert path.read_bytes() == b"old"
    write_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert below(home) == ["a.json"]


def test_a_file_that_cannot_be_written_is_named_and_not_its_temporary_file(home: Path) -> None:
    (home / "file").write_bytes(b"")
    for path, reason in ((home / "none" / "a", "No such file or directory"), (home / "file" / "a", "Not a directory")):
        with pytest.raises(WriteError) as caught:
            write_file(path, b"1")
        assert str(caught.value) == f"{path}: cannot write ({reason}); use another folder"
    with pytest.raises(FileNotFoundError) as other, atomic_file(home / "a"):
        (home / "deep" / "other").read_bytes()
    assert other.value.filename == str(home / "deep" / "other")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"files": 3}', b'{"files": {"a": {}}}', b"[" * 100_000])
def test_a_listing_that_cannot_be_read_makes_every_file_foreign(target: Path, content: bytes) -> None:
    (target / "list.json").write_bytes(content)
    assert foreign_file(target, LISTING) == "a"


def test_the_listing_names_every_file_by_its_hash(target: Path) -> None:
    assert list(json.loads((target / "list.json").read_text())["files"]) == ["a"]


def test_a_folder_is_removed_whole_or_kept(target: Path) -> None:
    (target / "notes.txt").write_text("mine")
    remove_folder(target, LISTING)
    assert below(target.parent) == ["out é", "out é/a", "out é/list.json", "out é/notes.txt"]
    (target / "notes.txt").unlink()
    remove_folder(target, LISTING)
    assert below(target.parent) == []


def test_the_permissions_of_a_replaced_folder_stay(target: Path) -> None:
    target.chmod(0o700)
    replace_it(target)
    assert target.stat().st_mode & 0o777 == 0o700


def test_a_link_to_a_file_stays_a_link_and_what_a_kill_leaves_is_no_foreign_file(target: Path) -> None:
    link = target.parent / "link"
    link.symlink_to(target / "a")
    write_file(link, b"2")
    assert link.is_symlink()
    assert (target / "a").read_text() == "2"
    write_listing(target, LISTING)
    code = "import os, signal; os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)"
    ran = run(
        f"{code}; import sys; from pathlib import Path; from slm.storage.disk import write_file\n"
        "write_file(Path(sys.argv[1]), b'3')",
        target / "a",
    )
    assert ran.returncode < 0
    assert len(below(target)) == 3
    assert foreign_file(target, LISTING) is None
    (target / f"{WORK_NAME}-mine").mkdir()
    (target / f"{WORK_NAME}-mine" / "f").write_text("mine")
    assert foreign_file(target, LISTING) == f"{WORK_NAME}-mine/f"


def test_parents_that_were_made_for_nothing_are_removed(home: Path) -> None:
    (home / "mine").mkdir()
    with pytest.raises(KeyboardInterrupt), atomic_folder(home / "mine" / "a" / "b" / "out", LISTING):
        raise KeyboardInterrupt
    assert below(home) == ["mine"]


@pytest.mark.parametrize("name", [".a", ".slmx", ".slmx-work2", ".slmx-workshop", "zz"])
def test_a_name_near_that_of_a_work_folder_is_foreign(target: Path, name: str) -> None:
    (target / name).write_text("mine")
    assert foreign_file(target, LISTING) == name
    with pytest.raises(SlmxError, match=rf"not empty: {re.escape(name)} was not made by slmx"):
        replace_it(target)


@pytest.mark.parametrize(("where", "is_ours"), [("work", True), ("target", True), ("elsewhere", False)])
def test_a_full_disk_is_said_of_the_folder_unless_the_file_is_elsewhere(
    target: Path, home: Path, where: str, is_ours: bool
) -> None:
    def fail_in(folder: Path) -> None:
        file = {"work": folder / "a", "target": target / "a", "elsewhere": home / "other" / "a"}[where]
        raise OSError(errno.ENOSPC, "No space left on device", str(file))

    with pytest.raises(SlmxError if is_ours else OSError) as caught, atomic_folder(target, LISTING, True) as folder:
        fail_in(folder)
    if is_ours:
        said = "nothing was changed there; free space there, or use another folder"
        assert str(caught.value) == f"{target}: cannot write (No space left on device); {said}"
    assert below(home) == ["out é", "out é/a", "out é/list.json"]
