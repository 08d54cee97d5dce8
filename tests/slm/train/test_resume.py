"""A run that was interrupted or killed continues exactly."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from slm.checkpoint import load_checkpoint
from slm.console.errors import SlmxError
from slm.storage.hashing import sha256_of
from slm.storage.locks import LOCK_FILE, Place
from slm.train.loop import Trainer
from slm.train.plan import TrainSettings
from slm.train.run_folder import RunFolder
from slm.train.summary import SUMMARY_FILE
from slm.train.train import train
from tests.bundles import Slmx
from tests.runs import (
    COMMAND,
    QUIET,
    WAITING_COMMAND,
    assert_same_run,
    interrupted_after,
    last,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_presets")]


@pytest.mark.parametrize(
    ("stop_at", "optimizer"), [(0, "muon"), (1, "muon"), (8, "muon"), (13, "muon"), (1, "adamw"), (13, "adamw")]
)
def test_a_resumed_run_ends_as_an_uninterrupted_one(
    settings: TrainSettings, tmp_path: Path, stop_at: int, optimizer: str
) -> None:
    settings = replace(settings, optimizer=optimizer)
    assert train(replace(settings, out=tmp_path / "whole"), QUIET)
    with interrupted_after(stop_at):
        assert train(settings, QUIET) is None
    record = load_checkpoint(last(settings.out)).record
    assert (record["steps_done"], record["tokens_seen"]) == (stop_at, stop_at * 4 * 32)
    assert train(replace(settings, resume=True), QUIET)
    assert_same_run(tmp_path / "whole", settings.out)
    outs = (tmp_path / "whole", settings.out)
    whole, resumed = (load_checkpoint(last(out)).record["curve"] for out in outs)
    assert whole == resumed
    times = ("seconds", "tokens_per_second")
    lines = [[{key: m[key] for key in m if key not in times} for m in RunFolder(out).metrics()] for out in outs]
    assert lines[0] == lines[1]


def test_the_folder_alone_is_enough_to_resume(settings: TrainSettings, tmp_path: Path) -> None:
    settings = replace(settings, accumulate=2)
    assert train(replace(settings, out=tmp_path / "whole"), QUIET)
    with interrupted_after(5):
        assert train(settings, QUIET) is None
    alone = TrainSettings(settings.out, compile=False, precision="fp32", resume=True)
    assert train(alone, QUIET)
    assert_same_run(tmp_path / "whole", settings.out)


def test_a_finished_run_resumed_is_left_as_it_is(settings: TrainSettings, tmp_path: Path) -> None:
    assert train(settings, QUIET)
    shutil.copytree(settings.out, tmp_path / "before")
    assert train(replace(settings, resume=True), QUIET)
    assert_same_run(tmp_path / "before", settings.out)
    before, after = (load_checkpoint(last(out)).record for out in (tmp_path / "before", settings.out))
    assert before == after


@pytest.mark.parametrize("steps", [12, 24])
def test_a_best_checkpoint_that_was_deleted_is_that_of_the_steps_from_there_on(
    settings: TrainSettings, steps: int
) -> None:
    if steps < 24:
        with interrupted_after(steps):
            train(settings, QUIET)
    else:
        assert train(settings, QUIET)
        (settings.out / SUMMARY_FILE).unlink()
    shutil.rmtree(settings.out / "best")
    summary = train(replace(settings, resume=True), QUIET)
    assert summary is not None
    best = load_checkpoint(settings.out / "best").record
    assert best["best"]["step"] == best["steps_done"] >= steps
    assert summary.bits_per_byte == load_checkpoint(last(settings.out)).record["best"]["bits_per_byte"]


@pytest.mark.parametrize("killed", [False, True])
def test_a_deleted_best_checkpoint_does_not_come_back(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """The second resume, after Ctrl-C or after a kill before the first step, finds another best checkpoint."""
    losses = iter([1000.0, 3000.0, 2000.0])  # after 8, 16 and 24 steps
    monkeypatch.setattr("slm.train.loop.total_loss", lambda *_: next(losses))
    with interrupted_after(16 if killed else 12):
        train(settings, QUIET)
    shutil.rmtree(settings.out / "best")
    if killed:
        Trainer(replace(settings, resume=True), QUIET)
    else:
        with interrupted_after(20):
            train(replace(settings, resume=True), QUIET)
    assert load_checkpoint(settings.out / "best").record["best"]["step"] == 16
    assert train(replace(settings, resume=True), QUIET)
    best = load_checkpoint(settings.out / "best").record
    assert best["steps_done"] == best["best"]["step"] == 24


@pytest.mark.parametrize("licence", ["CC0-1.0", "A licence\nof two lines\t" + "x" * 2000])
def test_a_resumed_run_keeps_the_licence_that_it_was_given(settings: TrainSettings, licence: str) -> None:
    with interrupted_after(5):
        train(replace(settings, licence=licence), QUIET)
    assert train(replace(settings, resume=True), QUIET)
    assert load_checkpoint(settings.out / "best").record["licence"] == licence


def test_a_run_records_the_data_set_that_it_reads_although_another_is_there_now(
    settings: TrainSettings, tiny_data: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    trainer = Trainer(replace(settings, text=(str(data),)), QUIET)
    for name in ("dataset.json", "tokenizer.json"):
        (data / name).write_text("{}")
    trainer.save_step()
    saved = load_checkpoint(last(settings.out))
    assert saved.record["dataset_sha256"] == sha256_of(tiny_data / "dataset.json")
    assert (saved.folder / "tokenizer.json").read_bytes() == (tiny_data / "tokenizer.json").read_bytes()


def test_a_finished_run_without_best_names_its_newest_checkpoint(settings: TrainSettings, slmx: Slmx) -> None:
    assert train(settings, QUIET)
    shutil.rmtree(settings.out / "best")
    resumed = slmx("train", "--resume", "--out", settings.out)
    assert (resumed.code, resumed.stdout) == (0, f"{last(settings.out)}\n")


def test_an_empty_newest_checkpoint_is_named_without_advice_for_another_folder(settings: TrainSettings) -> None:
    assert train(settings, QUIET)
    (settings.out / "step-9999999").mkdir()
    with pytest.raises(
        SlmxError, match=r"step-9999999: no checkpoint; delete step-9999999 to resume from step-0000024$"
    ):
        train(replace(settings, resume=True), QUIET)


def test_a_checkpoint_that_a_kill_kept_from_being_deleted_is_deleted(settings: TrainSettings) -> None:
    with interrupted_after(12):
        train(settings, QUIET)
    shutil.copytree(last(settings.out), settings.out / "step-0000004")
    Trainer(replace(settings, resume=True), QUIET)
    assert [path.name for path in RunFolder(settings.out).steps()] == ["step-0000008", "step-0000012"]


def test_the_command_leaves_a_finished_run_as_it_is_and_names_the_next_one(settings: TrainSettings, slmx: Slmx) -> None:
    assert train(settings, QUIET)
    before = {path: path.read_bytes() for path in settings.out.rglob("*") if path.is_file()}
    left = [Place.of(folder).work for folder in (settings.out, settings.out / "best")]
    for work in left:
        work.mkdir()
        (work / LOCK_FILE).touch()  # of a kill when it was finished
    old = settings.out / "step-0000004"
    shutil.copytree(last(settings.out), old)  # of a disk that failed when it was to be deleted
    resumed = slmx("train", "--resume", "--out", settings.out)
    assert not any(work.exists() for work in (*left, old))
    assert (resumed.code, resumed.stdout) == (0, f"{settings.out / 'best'}\n")
    out = shlex.quote(str(settings.out))
    assert resumed.stderr.startswith(f"finished already: 24 steps; now: slmx export --checkpoint {out} ")
    data = shlex.quote(str(settings.text[0]))
    further = f"to train it further: slmx train --init {out} --text {data} --steps N --out NEW"
    assert resumed.stderr.splitlines()[1:] == [further]
    line = slmx.refuses("train", "--out", settings.out, "--text", settings.text[0], "--steps", "30")
    assert line == f"{settings.out}: holds a finished run; {further}; or choose another --out"
    assert {path: path.read_bytes() for path in settings.out.rglob("*") if path.is_file()} == before
    assert "has its own shape" in slmx.refuses("train", "--resume", "--out", settings.out, "--n-layer", "3")
    line = slmx.refuses("train", "--resume", "--out", settings.out, "--steps", "30")
    assert line.endswith(
        "the run has steps 24, not 30; leave the option out to resume, or begin a new run from its weights with --init"
    )


def test_a_finished_run_refuses_what_could_only_change_more_steps(
    settings: TrainSettings, corpus_file: Path, tmp_path: Path, slmx: Slmx
) -> None:
    from_file = replace(settings, text=(str(corpus_file),), licence="CC0")
    assert train(from_file, QUIET)
    before = {path: path.read_bytes() for path in settings.out.rglob("*") if path.is_file()}
    resume = ("train", "--resume", "--out", settings.out)
    same = ("--text", corpus_file, "--licence", "CC0", "--precision", "fp32", "--no-compile", "--eval-every", "8")
    again = slmx(*resume, *same)
    assert (again.code, again.stdout) == (0, f"{settings.out / 'best'}\n")
    other = tmp_path / "an ünlike text.txt"
    other.write_text(corpus_file.read_text("utf-8") + "One day.", "utf-8")
    idle = f"{settings.out}: the run is finished, so --NAME would change nothing; leave it out"
    for given, line in (
        (
            ("--text", settings.text[0]),
            f"{settings.out}: the run was made from other data than --text; leave out --text, because the run knows "
            f"its data set {settings.out / 'data'}",
        ),
        (("--licence", "MIT"), idle.replace("NAME", "licence")),
        (("--precision", "bf16"), idle.replace("NAME", "precision")),
        (("--compile",), idle.replace("NAME", "compile")),
        (("--track", "tensorboard"), idle.replace("NAME", "track")),
        (("--eval-every", "9"), f"{settings.out}: the run has eval_every 8, not 9; leave the option out to resume"),
        (("--valid", other), f"{settings.out / 'data'}: holds its own validation split; give --valid to slmx prepare"),
        (
            ("--text", other, "--licence", "CC0"),
            f"{settings.out / 'data'}: made from another text or with other options; give the same, or choose "
            "another --out",
        ),
    ):
        assert slmx.refuses(*resume, *given) == line
    assert {path: path.read_bytes() for path in settings.out.rglob("*") if path.is_file()} == before


def test_a_run_killed_before_its_summary_gets_it(settings: TrainSettings, slmx: Slmx) -> None:
    assert train(settings, QUIET)
    (settings.out / SUMMARY_FILE).unlink()
    assert slmx("train", "--resume", "--out", settings.out).code == 0
    assert (settings.out / SUMMARY_FILE).is_file()


def run_until_stopped(cwd: Path, signal_: signal.Signals, stop_at: int, threads: int, *options: str) -> tuple[int, str]:
    """Train in a process that gets a signal in step `stop_at`; returns its exit code and what it wrote to stderr."""
    command = [sys.executable, "-c", WAITING_COMMAND, "train", *options]
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "STOP_AT": str(stop_at), "OMP_NUM_THREADS": str(threads)}
    with subprocess.Popen(command, cwd=cwd, env=env, stderr=subprocess.PIPE, encoding="utf-8") as child:
        until = time.monotonic() + 500
        while not (cwd / "waits").exists() and child.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        child.send_signal(signal_)
        (cwd / "goes_on").touch()
        _, messages = child.communicate(timeout=500)
    assert "Traceback" not in messages
    return child.returncode, messages


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("signal_", "code", "stop_at", "done"),
    [
        (signal.SIGINT, 130, 5, 6),
        (signal.SIGTERM, 143, 5, 6),
        (signal.SIGHUP, 129, 5, 6),
        (signal.SIGKILL, -signal.SIGKILL, 0, 0),
        (signal.SIGKILL, -signal.SIGKILL, 3, 0),
        (signal.SIGKILL, -signal.SIGKILL, 9, 8),
    ],
)
def test_a_stopped_process_leaves_a_run_that_goes_on(
    settings: TrainSettings, tmp_path: Path, signal_: signal.Signals, code: int, stop_at: int, done: int
) -> None:
    settings = replace(settings, steps=10, eval_every=4)
    options = ["--preset", "tiny", "--text", settings.text[0], "--out", str(settings.out)]
    options += ["--steps", "10", "--eval-every", "4", "--no-compile", "--precision", "fp32"]
    returned, messages = run_until_stopped(tmp_path, signal_, stop_at, 1, *options)
    assert returned == code, messages
    if signal_ != signal.SIGKILL:
        advice = f"slmx train --resume --out {shlex.quote(str(settings.out))}"
        assert messages.splitlines()[-1] == f"stopped and saved; continue with: {advice}"
    assert load_checkpoint(last(settings.out)).record["steps_done"] == done
    assert train(replace(settings, resume=True, precision=None, compile=None), QUIET)
    assert train(replace(settings, out=tmp_path / "whole"), QUIET)
    assert_same_run(tmp_path / "whole", settings.out)


@pytest.mark.heavy
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_a_killed_run_with_the_defaults_ends_as_an_uninterrupted_one(tiny_data: Path, tmp_path: Path) -> None:
    """The defaults of a user: torch.compile, the machine's precision and two threads."""

    def options(out: str) -> list[str]:
        return ["--preset", "wide", "--text", str(tiny_data), "--steps", "24", "--eval-every", "8", "--out", out]

    def finish(*options: str) -> None:
        command = [sys.executable, "-c", f"{COMMAND}main()", "train", *options]
        env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "2"}
        ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, timeout=500, check=False)
        assert ran.returncode == 0, ran.stderr

    finish(*options("whole"))
    returned, messages = run_until_stopped(tmp_path, signal.SIGKILL, 19, 2, *options("killed"))
    assert returned == -signal.SIGKILL, messages
    assert load_checkpoint(last(tmp_path / "killed")).record["steps_done"] == 16
    finish("--resume", "--out", "killed")
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_an_altered_state_of_the_optimizer_is_refused(settings: TrainSettings) -> None:
    with interrupted_after(3):
        assert train(settings, QUIET) is None
    file = last(settings.out) / "optimizer.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(SlmxError, match=r"optimizer\.safetensors: truncated or altered"):
        train(replace(settings, resume=True), QUIET)


def test_what_a_kill_left_half_written_is_cleared(settings: TrainSettings) -> None:
    with interrupted_after(3):
        assert train(settings, QUIET) is None
    torn = settings.out / ".slmx-work-step-0000004" / "new"
    torn.mkdir(parents=True)
    (torn.parent / "slmx-owner.json").write_text("{}")
    theirs = settings.out / ".venv.old"
    theirs.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    with (settings.out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "lo')
    assert train(replace(settings, resume=True), QUIET)
    assert not torn.parent.exists()
    assert theirs.exists()
    assert [m["step"] for m in RunFolder(settings.out).metrics() if "loss" in m] == [10, 20, 24]
