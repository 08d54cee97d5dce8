"""Folders appear whole or not at all, one writer at a time, and nothing that slmx did not make is replaced."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from slm import atomic, disk, locks
from slm.atomic import atomic_folder, remove_folder
from slm.disk import WORK_NAME, write_file
from slm.errors import SlmxError
from slm.locks import FolderBusy, Place, clear_leftovers, lock_folder
from slm.ownership import Listing, foreign_file, write_listing

LISTING = Listing("list.json", "files", unlisted=("extra",))
START = """
import os, signal, sys
from pathlib import Path
from slm import atomic
from slm.atomic import atomic_folder
from slm.errors import SlmxError
from slm.locks import Place, lock_folder
from slm.ownership import Listing, foreign_file, write_listing
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
# Becomes another user after it has loaded everything, for Python itself may be in a folder that is closed to others.
NOBODY = """
import shutil, tempfile
target, real = Path(tempfile.mkdtemp()) / "x", target
replace("0")
shutil.rmtree(target.parent)
target = real
os.setuid(65534)
"""
COUNTING = (
    START
    + """
count = target.parent / "count"
for _ in range(15):
    with lock_folder(target, wait=True):
        found = int(count.read_text())
        count.write_text(str(found + 1))
"""
)
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
    """A folder whose name needs care."""
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
    clear_leftovers(target.parent)
    assert sorted(path.name for path in target.parent.iterdir()) == sorted([*neighbours, target.name])
    assert all((target.parent / name / "f").read_text() == "mine" for name in neighbours)
    assert below(target) == ["a", "list.json"]


def test_a_folder_that_only_has_the_name_of_a_work_folder_is_kept(target: Path) -> None:
    work = target.parent / f"{WORK_NAME}-{target.name}"
    work.mkdir()
    (work / "thesis.txt").write_text("mine")
    with pytest.raises(SlmxError, match="not a work folder of slmx"):
        replace_it(target)
    assert below(work) == ["thesis.txt"]


def test_a_second_writer_is_refused_with_who_is_at_it(target: Path, writer: subprocess.Popen[str]) -> None:
    with pytest.raises(SlmxError, match=f"process {writer.pid} is writing it .*; wait for it"):
        replace_it(target)
    assert below(target) == ["a", "list.json"]
    writer.kill()
    writer.wait()
    replace_it(target)
    assert below(target.parent) == ["out é", "out é/b", "out é/list.json"]


def test_a_writer_that_waits_goes_on_when_the_first_ends(
    target: Path, writer: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert writer.stdin is not None
    threading.Timer(0.5, writer.stdin.close).start()
    with lock_folder(target, wait=True):
        assert writer.wait(10) == 0
    assert f"process {writer.pid} is writing it" in capsys.readouterr().err
    assert below(target.parent) == ["out é", "out é/a", "out é/list.json"]


def test_a_lock_may_be_taken_again_by_its_holder(target: Path) -> None:
    with lock_folder(target):
        replace_it(target)
        other = run(WRITER, target)
        assert f"FolderBusy: {target}: process {os.getpid()} is writing it" in other.stderr
    assert below(target.parent) == ["out é", "out é/b", "out é/list.json"]


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
    with pytest.raises(SlmxError, match="was not made by slmx"):
        replace_it(target)


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


def test_one_lock_serves_for_several_folders_in_turn(target: Path) -> None:
    with lock_folder(target):
        replace_it(target)
        with pytest.raises(ValueError, match="x"):
            replace_it(target, ValueError("x"))
        replace_it(target)
    assert below(target.parent) == ["out é", "out é/b", "out é/list.json"]


def test_another_thread_is_another_writer(target: Path) -> None:
    caught: list[BaseException] = []

    def second() -> None:
        try:
            replace_it(target)
        except SlmxError as error:
            caught.append(error)

    with lock_folder(target):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert [type(error) for error in caught] == [FolderBusy]


def test_of_many_waiting_writers_one_at_a_time_goes_on(home: Path) -> None:
    (home / "count").write_text("0")
    command = [sys.executable, "-c", COUNTING, str(home / "out é")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8") for _ in range(4)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert (home / "count").read_text() == "60"
    assert below(home) == ["count"]


def test_a_folder_inside_one_of_the_same_name_has_a_lock_of_its_own(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == target)
    inner = target / target.name
    with lock_folder(target) as place:
        assert place.work.parent == target
        for _ in range(2):
            replace_it(inner)
            clear_leftovers(target)
    assert below(target) == ["a", "list.json", "out é", "out é/b", "out é/list.json"]


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
        assert ran.stdout == f"{target}: cannot write (Permission denied); nothing was changed there\n"


def test_a_name_that_no_folder_can_have_is_one_line(home: Path) -> None:
    with pytest.raises(SlmxError, match="cannot write"):
        replace_it(home / ("x" * 300))
    (home / "circle").symlink_to(home / "circle")
    with pytest.raises(SlmxError, match=r"cannot write|a file stands"):
        replace_it(home / "circle")
    assert below(home) == ["circle"]


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


def test_an_error_about_another_file_is_not_told_as_one_of_the_target(target: Path) -> None:
    (target.parent / "s.txt").touch()
    with pytest.raises(NotADirectoryError), atomic_folder(target, LISTING, replace=True):
        (target.parent / "s.txt" / "x").read_text()


def test_a_full_disk_is_one_line_and_leaves_the_old(target: Path) -> None:
    for where in (target, target.parent / "new"):
        ran = run(DISK_FULL, where)
        assert ran.stdout == f"{where}: cannot write (File too large); nothing was changed there\n"
        assert ran.stderr == ""
        assert below(target.parent) == ["out é", "out é/a", "out é/list.json"]


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
        f"{code}; import sys; from pathlib import Path; from slm.disk import write_file\n"
        "write_file(Path(sys.argv[1]), b'3')",
        target / "a",
    )
    assert ran.returncode < 0
    assert len(below(target)) == 3
    assert foreign_file(target, LISTING) is None
    (target / f"{WORK_NAME}-mine").mkdir()
    (target / f"{WORK_NAME}-mine" / "f").write_text("mine")
    assert foreign_file(target, LISTING) == f"{WORK_NAME}-mine/f"


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
