"""One writer of a folder at a time."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from slm.console.errors import SlmxError
from slm.storage.disk import WORK_NAME
from slm.storage.locks import FolderBusy, clear_leftovers, lock_folder
from tests.slm.storage.folders import START, WRITER, below, replace_it, run

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


def test_a_folder_that_only_has_the_name_of_a_work_folder_is_kept(target: Path) -> None:
    work = target.parent / f"{WORK_NAME}-{target.name}"
    work.mkdir()
    (work / "thesis.txt").write_text("mine")
    with pytest.raises(SlmxError, match="not a work folder of slmx"):
        replace_it(target)
    assert below(work) == ["thesis.txt"]


def test_a_file_that_has_the_name_of_a_work_folder_is_kept(target: Path) -> None:
    work = target.parent / f"{WORK_NAME}-{target.name}"
    work.write_text("mine")
    with pytest.raises(SlmxError, match="not a work folder of slmx"):
        replace_it(target)
    assert work.read_text() == "mine"


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


def test_a_work_folder_that_vanishes_while_it_is_made_is_made_again(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, there = os.mkdir, [errno.EEXIST]

    def mkdir(path: Path, *mode: int) -> None:
        if WORK_NAME in str(path) and there:
            raise FileExistsError(there.pop(), os.strerror(errno.EEXIST), str(path))
        really(path, *mode)

    monkeypatch.setattr(os, "mkdir", mkdir)
    replace_it(target)
    assert not there


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


def test_a_new_folder_in_which_nothing_was_written_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "new" / "out é"
    with lock_folder(target):
        target.mkdir(parents=True)
    assert below(tmp_path) == []

    def full(*_: object) -> None:
        target.mkdir(parents=True)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("slm.storage.locks._write_owner", full)
    with pytest.raises(SlmxError, match="nothing was changed there"), lock_folder(target):
        pytest.fail("locked")
    assert below(tmp_path) == []
