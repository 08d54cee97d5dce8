"""A kill or a failing disk at any moment leaves the old folder or the new one."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest

from slm.console.errors import SlmxError
from slm.storage import atomic, disk, locks
from slm.storage.atomic import atomic_folder
from slm.storage.disk import WORK_NAME
from slm.storage.locks import Place, clear_leftovers, lock_folder
from tests.slm.storage.folders import LISTING, START, below, replace_it, run

DISK_FULL = (
    START
    + """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    replace("x" * 5000)
except SlmxError as error:
    print(error)
"""
)


KILLED = START + "with atomic_folder(target, LISTING, replace=True) as folder: os.kill(os.getpid(), signal.SIGKILL)"


# Kills a copy of this process at each of its calls that change the disk, one call later each time.
CRASHES = (
    START
    + """
EVENTS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "open", "exchange")
left = [-1]
def hook(event, arguments):
    if event in EVENTS and left[0] >= 0:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
call = atomic.exchange
def exchange(*arguments):
    sys.audit("exchange")
    return call(*arguments) if sys.argv[2] == "exchange" else False
atomic.exchange = exchange
if sys.argv[2] == "in place":
    place_of = Place.of
    def in_place(path):
        place = place_of(path)
        return Place(place.target, place.target / ".slmx-work", "this is a test") if path.exists() else place
    Place.of = in_place
def killed_after(count, action):
    child = os.fork()
    if not child:
        left[0] = count
        action()
        left[0] = -1
        os._exit(0)
    return os.waitpid(child, 0)[1]
def settle():
    with lock_folder(target):
        pass
replace("0")
for count in range(1000):
    before = (target / "a").read_text()
    text = str(count + 1)
    status = killed_after(count, lambda: replace(text))
    killed_after(count % 9, settle)
    settle()
    assert foreign_file(target, LISTING) is None, count
    assert len(set(p.read_text() for p in (target / "a", target / "b" / "c"))) == 1, count
    assert (target / "a").read_text() in (before, text), count
    assert [p.name for p in target.parent.iterdir()] == [target.name], count
    now = (target / "a").read_text()
    assert sorted(p.name for p in target.iterdir()) == ["a", "b", "d" + now, "list.json"], count
    if not status:
        assert (target / "a").read_text() == text
        print(count)
        break
"""
)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("way", ["exchange", "two renames", "in place"])
def test_a_kill_at_any_call_leaves_the_old_or_the_new_and_the_next_writer_goes_on(home: Path, way: str) -> None:
    ran = run(CRASHES, home / "out é", way)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 15, "the process must have been killed at many calls"


def test_leftovers_of_a_killed_writer_are_cleared_and_nothing_else(target: Path) -> None:
    neighbours = [".venv.old", ".git.bak", ".out é.12345678", f"{WORK_NAME}-theirs", "..x"]
    for name in neighbours:
        (target.parent / name).mkdir()
        (target.parent / name / "f").write_text("mine")
    assert run(KILLED, target).returncode < 0
    assert f"{WORK_NAME}-{target.name}" in [path.name for path in target.parent.iterdir()]
    for name, files in (("b", ()), ("c", ("lock",))):  # of kills before it has an owner, and when it is removed
        (target.parent / f"{WORK_NAME}-{name}").mkdir()
        for file in files:
            (target.parent / f"{WORK_NAME}-{name}" / file).touch()
    clear_leftovers(target.parent)
    assert sorted(path.name for path in target.parent.iterdir()) == sorted([*neighbours, target.name])
    assert all((target.parent / name / "f").read_text() == "mine" for name in neighbours)
    assert below(target) == ["a", "list.json"]


def test_what_a_kill_left_of_a_complete_folder_is_cleared_unless_another_process_writes_it(
    target: Path, writer: subprocess.Popen[str]
) -> None:
    work = Place.of(target).work
    locks.clear_leftover(target)
    assert work.is_dir()
    writer.kill()
    writer.wait()
    locks.clear_leftover(target)
    assert not work.exists()
    assert below(target) == ["a", "list.json"]


def test_what_a_killed_writer_moved_away_is_never_deleted_for_what_came_since(target: Path) -> None:
    place = Place.of(target)
    place.fresh.mkdir(parents=True)
    (place.work / locks.OWNER_FILE).write_text("{}")
    target.rename(place.old)
    target.mkdir()
    with lock_folder(target):
        assert below(target) == ["a", "list.json"], "an empty folder was made there since"

    place.fresh.mkdir(parents=True)
    (place.work / locks.OWNER_FILE).write_text("{}")
    target.rename(place.old)
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    for _ in range(2):
        with (
            pytest.raises(SlmxError, match=r"what it held before is in .*old, left by a killed run"),
            lock_folder(target),
        ):
            pytest.fail("the work was begun")
        with pytest.raises(SlmxError, match="what it held before"):
            clear_leftovers(target.parent)
    assert below(target) == ["notes.txt"]
    assert below(place.old) == ["a", "list.json"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_disk_that_fails_when_it_is_flushed_leaves_the_old(
    target: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(SlmxError, match=rf"cannot write \({os.strerror(number)}\); nothing was changed there"):
        replace_it(target)
    assert below(target.parent) == ["out é", "out é/a", "out é/list.json"]


def test_a_file_system_that_cannot_flush_is_written_to(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(_: int) -> None:
        raise OSError(errno.EINVAL, "x")

    monkeypatch.setattr(os, "fsync", cannot)
    replace_it(target)
    assert below(target) == ["b", "list.json"]


def test_everything_is_flushed_before_the_names_change(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def exchanged(*folders: Path) -> bool:
        events.append("EXCHANGE")
        return disk.exchange(*folders)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system does not name open files")
    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(atomic, "exchange", exchanged)
    replace_it(target)
    swap = events.index("EXCHANGE")
    assert {"b", "list.json", "new"} <= set(events[:swap])
    assert target.parent.name in events[swap:]
    events.clear()
    replace_it(target.parent / "late")
    assert target.parent.name in events[events.index("new") :]


def test_what_a_killed_writer_of_a_file_left_is_removed_by_the_next_one_and_nothing_else(home: Path) -> None:
    code = "import os, sys, signal\nfrom pathlib import Path\nfrom slm.storage.disk import atomic_file\n"
    code += "with atomic_file(Path(sys.argv[1])) as file: os.kill(os.getpid(), signal.SIGKILL)"
    assert run(code, home / "a").returncode < 0
    (left,) = home.iterdir()
    assert disk.is_temporary(left.name)
    theirs = [f"{WORK_NAME}-mine", f"{WORK_NAME}-ABCDEFGH", f"{WORK_NAME}-abcdefghi", "notes"]
    for name in theirs:
        (home / name).write_text("mine")
    (home / f"{WORK_NAME}-a_folder").mkdir()
    with disk.atomic_file(home / "a") as file:
        assert not left.exists()
        disk.write_file(home / "b", b"2")  # it leaves the file of the writer that runs
        file.write(b"1")
    assert (home / "a").read_bytes() == b"1"
    assert below(home) == sorted(["a", "b", f"{WORK_NAME}-a_folder", *theirs])


def test_a_file_system_without_locks_or_hard_links_is_written_to(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: object) -> None:
        raise OSError(errno.EPERM, "x")

    monkeypatch.setattr("fcntl.flock", cannot)
    monkeypatch.setattr(os, "link", cannot)
    left = home / f"{WORK_NAME}-abcdefgh"
    left.touch()
    disk.write_new_file(home / "a", b"1", 0o600)
    with pytest.raises(disk.WriteError, match="File exists"):
        disk.write_new_file(home / "a", b"2", 0o600)
    assert (home / "a").read_bytes() == b"1"
    assert below(home) == [left.name, "a"]


def test_a_new_file_replaces_none_and_is_not_left_on_a_disk_that_fails(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.write_new_file(home / "a", b"1", 0o600)
    with pytest.raises(disk.WriteError, match="File exists"):
        disk.write_new_file(home / "a", b"2", 0o600)
    monkeypatch.setattr(disk, "sync", _fails)
    with pytest.raises(disk.WriteError, match=r"b: cannot write \(Input/output error\); check the disk"):
        disk.write_new_file(home / "b", b"2", 0o600)
    assert (home / "a").read_bytes() == b"1"
    assert below(home) == ["a"]


def test_a_disk_that_does_not_confirm_the_new_name_is_not_told_as_one_that_was_not_written(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "sync", _fails)
    monkeypatch.setattr(atomic, "sync_tree", lambda _: None)
    said = r"written, but the disk did not confirm it \(Input/output error\); check the disk"
    with pytest.raises(SlmxError, match=said):
        disk.write_file(target.parent / "file", b"2")
    assert (target.parent / "file").read_bytes() == b"2"
    with pytest.raises(SlmxError, match=said):
        replace_it(target)
    assert below(target) == ["b", "list.json"]


def _fails(_: Path) -> None:
    raise OSError(errno.EIO, "Input/output error")


def test_an_error_about_another_file_is_not_told_as_one_of_the_target(target: Path) -> None:
    (target.parent / "s.txt").touch()
    with pytest.raises(NotADirectoryError), atomic_folder(target, LISTING, replace=True):
        (target.parent / "s.txt" / "x").read_text()


def test_a_full_disk_is_one_line_and_leaves_the_old(target: Path) -> None:
    for where in (target, target.parent / "new"):
        ran = run(DISK_FULL, where)
        said = "nothing was changed there; free space there, or use another folder"
        assert ran.stdout == f"{where}: cannot write (File too large); {said}\n"
        assert ran.stderr == ""
        assert below(target.parent) == ["out é", "out é/a", "out é/list.json"]


@pytest.mark.parametrize(
    "owner", [b"", b"[]", b'{"removes": 5}', b'{"removes": [1]}', b'{"removes": ["../victim"], "last": 3}', b"[" * 9999]
)
def test_an_odd_owner_file_harms_nobody(target: Path, owner: bytes) -> None:
    victim = target.parent / "victim"
    victim.write_text("mine")
    work = locks.Place.of(target).work
    (work / "new").mkdir(parents=True)
    (work / "new" / "b").write_text("left")
    (work / locks.OWNER_FILE).write_bytes(owner)
    replace_it(target)
    assert victim.read_text() == "mine"
    assert below(target) == ["b", "list.json"]


def test_a_file_outside_that_an_owner_file_names_is_kept(target: Path) -> None:
    victim = target.parent / "victim"
    victim.write_text("mine")
    work = locks.Place.of(target).work
    (work / "new").mkdir(parents=True)
    (work / "new" / "b").write_text("left")
    (work / locks.OWNER_FILE).write_text(json.dumps({"removes": ["../victim", str(victim)], "last": None}))
    with locks.lock_folder(target):
        pass
    assert victim.read_text() == "mine"
