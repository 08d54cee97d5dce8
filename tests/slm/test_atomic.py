"""Folders appear whole or not at all, one writer at a time, and nothing that slmx did not make is replaced."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from slm import atomic
from slm.atomic import atomic_folder, clear_leftovers, lock_folder, write_file
from slm.errors import SlmxError
from slm.ownership import WORK_PREFIX, Listing, foreign_file, write_listing

LISTING = Listing("list.json", "files", unlisted=("extra",))
START = """
import os, signal, sys
from pathlib import Path
from slm import atomic
from slm.atomic import atomic_folder, lock_folder
from slm.errors import SlmxError
from slm.ownership import WORK_PREFIX, Listing, foreign_file, write_listing
LISTING = Listing("list.json", "files")
target = Path(sys.argv[1])
def replace(text):
    with atomic_folder(target, LISTING, replace=True) as folder:
        (folder / "a").write_text(text)
        (folder / "b").mkdir()
        (folder / "b" / "c").write_text(text)
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
call = atomic._renameat2
def exchange(*arguments):
    sys.audit("exchange")
    return call(*arguments) if sys.argv[2] == "exchange" else False
atomic._renameat2 = exchange
if sys.argv[2] == "in place":
    place_of = atomic.Place.of
    def in_place(path):
        place = place_of(path)
        return atomic.Place(place.target, place.target / place.work.name, True) if path.exists() else place
    atomic.Place.of = in_place
replace("0")
for count in range(1000):
    text = str(count + 1)
    before = (target / "a").read_text()
    child = os.fork()
    if not child:
        left[0] = count
        replace(text)
        left[0] = -1
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if sys.argv[2] != "in place":
        with lock_folder(target):
            pass
        assert foreign_file(target, LISTING) is None, count
        assert len(set(p.read_text() for p in (target / "a", target / "b" / "c"))) == 1
        assert (target / "a").read_text() in (before, text), count
    elif foreign_file(target, LISTING) is not None:
        assert not (target / "list.json").exists(), count
        import shutil
        shutil.rmtree(target)
    replace(text)
    assert (target / "a").read_text() == text and foreign_file(target, LISTING) is None
    assert sorted(p.name for p in target.parent.iterdir()) == [target.name]
    assert sorted(p.name for p in target.iterdir()) == ["a", "b", "list.json"], count
    if not status:
        print(count)
        break
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

    monkeypatch.setattr(atomic, "_renameat2", lambda *_: False)
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
    neighbours = [".venv.old", ".git.bak", ".out é.12345678", WORK_PREFIX + "theirs", "..x"]
    for name in neighbours:
        (target.parent / name).mkdir()
        (target.parent / name / "f").write_text("mine")
    assert run(KILLED, target).returncode < 0
    assert WORK_PREFIX + target.name in [path.name for path in target.parent.iterdir()]
    clear_leftovers(target.parent)
    assert sorted(path.name for path in target.parent.iterdir()) == sorted([*neighbours, target.name])
    assert all((target.parent / name / "f").read_text() == "mine" for name in neighbours)
    assert below(target) == ["a", "list.json"]


def test_a_folder_that_only_has_the_name_of_a_work_folder_is_kept(target: Path) -> None:
    work = target.parent / (WORK_PREFIX + target.name)
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


def test_many_writers_of_one_folder_take_turns(home: Path) -> None:
    code = (
        START
        + """
import time
for _ in range(15):
    with lock_folder(target, wait=True) as place:
        mine = place.work / "mine"
        mine.touch(exist_ok=False)
        time.sleep(0.001)
        mine.unlink()
"""
    )
    command = [sys.executable, "-c", code, str(home / "out é")]
    writers = [subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8") for _ in range(4)]
    errors = [writer.communicate(timeout=60)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4, errors
    assert below(home) == []


def test_a_lock_may_be_taken_again_by_its_holder(target: Path) -> None:
    with lock_folder(target):
        replace_it(target)
        other = run(WRITER, target)
        assert "SlmxError" in other.stderr
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


@pytest.mark.parametrize("replaces", [False, True])
@pytest.mark.parametrize("way", ["renameat2", "two renames"])
def test_what_comes_meanwhile_is_kept_and_so_is_the_new_folder(
    target: Path, replaces: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "two renames":
        monkeypatch.setattr(atomic, "_renameat2", lambda *_: False)
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


def test_a_folder_that_cannot_be_renamed_is_filled_in_place(
    target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == target)
    inode = target.stat().st_ino
    with pytest.raises(SlmxError, match="--force"), atomic_folder(target, LISTING):
        pytest.fail("the work was begun")
    replace_it(target)
    assert below(target.parent) == ["out é", "out é/b", "out é/list.json"]
    assert target.stat().st_ino == inode
    assert "cannot be renamed, so its files are replaced one by one" in capsys.readouterr().err
    assert foreign_file(target, LISTING) is None


def test_a_mounted_folder_is_filled_in_place(target: Path) -> None:
    volume = target.parent / "volume é"
    volume.mkdir()
    try:
        mounted = subprocess.run(["mount", "--bind", str(target), str(volume)], capture_output=True, check=False)
    except OSError:
        pytest.skip("this system has no mount")
    if mounted.returncode:
        pytest.skip("this user may not mount")
    try:
        replace_it(volume)
        assert below(volume) == below(target) == ["b", "list.json"]
    finally:
        subprocess.run(["umount", str(volume)], check=True)


def test_a_name_that_no_folder_can_have_is_one_line(home: Path) -> None:
    with pytest.raises(SlmxError, match="cannot write"):
        replace_it(home / ("x" * 300))
    (home / "circle").symlink_to(home / "circle")
    with pytest.raises(SlmxError, match=r"cannot write|a file stands"):
        replace_it(home / "circle")
    assert below(home) == ["circle"]


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
