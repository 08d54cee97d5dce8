"""A run folder deletes only what slmx made in it, and loses no checkpoint to a kill."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from slm.console.errors import SlmxError
from slm.folder_kind import CHECKPOINT_LISTING
from slm.storage.disk import WriteError
from slm.storage.file_names import RUN_FILE
from slm.storage.listing import write_listing
from slm.storage.locks import clear_leftovers
from slm.storage.ownership import foreign_file
from slm.train.plan import TrainSettings
from slm.train.run_folder import METRICS_FILE, OPTIMIZER_FILE, RunFolder
from slm.train.summary import SUMMARY_FILE

# Is killed after the first of the two renames that replace `best`, on a system that cannot exchange names.
KILLED = """
import os, signal, sys
from pathlib import Path
from slm.storage import atomic
from slm.folder_kind import CHECKPOINT_LISTING
from slm.storage.listing import write_listing
from slm.train.run_folder import RunFolder
atomic.exchange = lambda *_: False
rename = Path.rename
def once(self, to):
    rename(self, to)
    os.kill(os.getpid(), signal.SIGKILL)
Path.rename = once
with RunFolder(Path(sys.argv[1])).new_best() as folder:
    (folder / "model.safetensors").write_text("new")
    write_listing(folder, CHECKPOINT_LISTING)
"""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run folder that also holds files of other programs."""
    folder = RunFolder(tmp_path / "é 50% #1")
    folder.make()
    for name in (".venv.old", ".git.bak"):
        (folder.path / name).mkdir()
        (folder.path / name / "f").write_text("mine")
    with folder.new_best() as best:
        fill(best, "old")
    return folder


def fill(folder: Path, text: str) -> None:
    (folder / "model.safetensors").write_text(text)
    (folder / OPTIMIZER_FILE).write_text(text)
    write_listing(folder, CHECKPOINT_LISTING)


def write_steps(run: RunFolder, *steps: int) -> None:
    for step in steps:
        with run.new_step(step, keep_first=False) as folder:
            fill(folder, str(step))


def test_folders_of_others_are_kept(run: RunFolder) -> None:
    clear_leftovers(run.path)
    run.make()
    write_steps(run, 1, 2, 3)
    assert sorted(os.listdir(run.path)) == [".git.bak", ".venv.old", "best", "samples", "step-0000002", "step-0000003"]
    assert all((run.path / name / "f").read_text() == "mine" for name in (".venv.old", ".git.bak"))


@pytest.mark.slow
def test_a_best_that_was_being_replaced_is_brought_back(run: RunFolder) -> None:
    ran = subprocess.run([sys.executable, "-c", KILLED, str(run.path)], capture_output=True, text=True, check=False)
    assert ran.returncode < 0, ran.stderr
    assert not (run.path / "best").exists()
    clear_leftovers(run.path)
    assert (run.path / "best" / "model.safetensors").read_text() == "old"
    assert sorted(os.listdir(run.path)) == [".git.bak", ".venv.old", "best", "samples"]


def test_an_old_checkpoint_with_a_file_of_a_user_is_kept(run: RunFolder) -> None:
    write_steps(run, 1)
    (run.path / "step-0000001" / "notes.txt").write_text("mine")
    write_steps(run, 2, 3, 4)
    assert [path.name for path in run.steps()] == ["step-0000001", "step-0000003", "step-0000004"]
    assert len(os.listdir(run.path / "step-0000001")) == 4
    with pytest.raises(
        SlmxError, match=r"step-0000001/notes\.txt: was not made by slmx or was changed since; move it away$"
    ):
        run.make()


def test_the_state_of_the_optimizer_may_be_listed_or_not(run: RunFolder) -> None:
    write_steps(run, 1)
    step = run.path / "step-0000001"
    (step / OPTIMIZER_FILE).write_text("altered")
    assert foreign_file(step, CHECKPOINT_LISTING) == OPTIMIZER_FILE
    (step / OPTIMIZER_FILE).unlink()
    write_listing(step, CHECKPOINT_LISTING)
    (step / OPTIMIZER_FILE).write_text("of an earlier version")
    assert foreign_file(step, CHECKPOINT_LISTING) is None


@pytest.mark.parametrize("name", ["metrics.jsonl", "summary.json", "samples/step-0000001.txt", "notes é.txt"])
def test_a_new_run_begins_in_no_folder_that_holds_files_of_something_else(tmp_path: Path, name: str) -> None:
    run = RunFolder(tmp_path / "é 50% #1")
    run.check_free()
    (run.path / name).parent.mkdir(parents=True)
    run.check_free()
    (run.path / name).write_text("mine")
    with pytest.raises(SlmxError, match=rf"#1: not empty: {re.escape(name)} is not of a training run; choose another"):
        run.check_free()
    assert (run.path / name).read_text() == "mine"


def test_a_run_that_was_killed_before_its_first_checkpoint_may_begin_again(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    for name in ("data/dataset.json", ".slmx-work-data/lock"):
        (run.path / name).parent.mkdir(parents=True)
        (run.path / name).write_text("{}")
    run.check_free()
    run.remember(tmp_path, TrainSettings(tmp_path, ("x.txt",)))
    run.log({"step": 1})
    run.check_free()
    write_steps(run, 1)
    with pytest.raises(SlmxError, match="holds a run already"):
        run.check_free()


def test_the_best_checkpoint_of_an_earlier_run_is_not_replaced(run: RunFolder) -> None:
    run.remember(run.path, TrainSettings(run.path, ("x.txt",)))
    with pytest.raises(SlmxError, match="holds best, the checkpoint of an earlier run; choose another --out"):
        run.check_free()
    (run.path / SUMMARY_FILE).write_text("{}")
    with pytest.raises(SlmxError, match="holds a finished run; to train it further"):
        run.check_free()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_metrics_that_cannot_be_written_are_named(run: RunFolder) -> None:
    (run.path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(WriteError, match=r"metrics.jsonl: cannot write \(No space left on device\); free space there"):
        run.log({"step": 1})


def test_a_run_remembers_its_precision_and_whether_it_compiles(tmp_path: Path) -> None:
    run, asked = RunFolder(tmp_path / "run"), TrainSettings(tmp_path / "run", resume=True)
    assert run.remembered(asked) == asked
    run.make()
    run.remember(tmp_path, replace(asked, precision="fp32", compile=False))
    assert run.remembered(asked) == replace(asked, precision="fp32", compile=False)
    given = replace(asked, precision="bf16", compile=True)
    assert run.remembered(given) == given
    (run.path / "run.json").write_text('{"data": "x", "precision": 7, "compile": "yes"}')
    assert run.remembered(asked) == asked


@pytest.mark.parametrize(
    "line", ['{"step": 3, "loss": NaN}', '{"step": 3, "loss": 1e999}', '{"step": 1.5}', '{"loss": 1}']
)
def test_metrics_that_no_plot_can_show_are_left_out(line: str, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.log({"step": 1, "loss": 2.5})
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write(f'{line}\n{{"step": 2, "loss": {"9" * 400}}}\n')
    assert run.metrics() == [{"step": 1, "loss": 2.5}]


@pytest.mark.parametrize("data", ["x" * 5000, "a\nb", "a\u2028b", "\0", 5])
def test_a_place_of_the_data_that_cannot_be_is_one_line(data: object, tmp_path: Path) -> None:
    (tmp_path / RUN_FILE).write_text(json.dumps({"data": data}))
    with pytest.raises(SlmxError, match=r"run\.json: .*; give it with --text$") as caught:
        RunFolder(tmp_path).dataset_path()
    assert len(str(caught.value).splitlines()) == 1


def test_a_place_of_the_data_that_is_too_long_for_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / RUN_FILE).write_text(json.dumps({"data": "x" * 500}))
    with pytest.raises(SlmxError, match="but none is there; give it with --text"):
        RunFolder(tmp_path).dataset_path()
