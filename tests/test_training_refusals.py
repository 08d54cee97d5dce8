"""What training refuses, in one line and with nothing lost."""

from __future__ import annotations

import math
import resource
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from slm.checkpoint import load_checkpoint
from slm.cli import main
from slm.corpus import is_held_out
from slm.errors import SlmxError
from slm.hashing import sha256_of
from slm.train import Trainer, TrainSettings, train
from tests.conftest import as_corpus, run_slmx
from tests.runs import (
    QUIET,
    interrupted_after,
)

pytestmark = pytest.mark.usefixtures("tiny_presets")


def test_a_run_is_neither_overwritten_nor_mixed(plan: TrainSettings, tmp_path: Path) -> None:
    with pytest.raises(SlmxError, match="no run to resume"):
        train(replace(plan, resume=True), QUIET)
    assert train(replace(plan, steps=8), QUIET)
    with pytest.raises(SlmxError, match="holds a run already; add --resume"):
        train(plan, QUIET)
    other = tmp_path / "other.txt"
    other.write_text(plan.data[0].read_text("utf-8") + "One more story.\n", "utf-8")
    changed = {
        "has steps 8, not 24": replace(plan, resume=True),
        "has learning_rate 0.01, not 0.02": replace(plan, steps=8, resume=True, learning_rate=0.02),
        "has weight_decay 0.1, not 0": replace(plan, steps=8, resume=True, weight_decay=0.0),
        "has batch_size 4, not 5": replace(plan, steps=8, resume=True, batch_size=5),
        "has dropout 0.1, not 0.2": replace(plan, steps=8, resume=True, dropout=0.2),
        "has grad_clip 1.0, not 2.0": replace(plan, steps=8, resume=True, grad_clip=2.0),
        "has eval_every 8, not 4": replace(plan, steps=8, resume=True, eval_every=4),
        "has seed 1, not 2": replace(plan, steps=8, resume=True, seed=2),
        "a run of tiny, not other": replace(plan, steps=8, resume=True, preset="other"),
        "made from other data": replace(plan, steps=8, resume=True, data=(other,)),
        "from other data;": replace(plan, steps=8, resume=True, valid=(other,)),
    }
    before = {path: sha256_of(path) for path in plan.out.rglob("*") if path.is_file()}
    for said, settings_ in changed.items():
        with pytest.raises(SlmxError, match=said):
            train(settings_, QUIET)
    assert {path: sha256_of(path) for path in plan.out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("damage", ["missing", "truncated", "of another model"])
def test_a_damaged_optimizer_state_is_named(plan: TrainSettings, damage: str) -> None:
    with interrupted_after(3):
        assert not train(plan, QUIET)
    state = plan.out / "last" / "optimizer.safetensors"
    if damage == "missing":
        state.unlink()
    elif damage == "truncated":
        state.write_bytes(state.read_bytes()[:-9])
    else:
        shutil.copyfile(plan.out / "last" / "model.safetensors", state)
    with pytest.raises(SlmxError, match=r"optimizer\.safetensors: cannot read .*start a new run"):
        train(replace(plan, resume=True), QUIET)


def test_a_loss_that_is_no_number_stops_the_run(plan: TrainSettings) -> None:
    with pytest.raises(SlmxError, match=r"is (nan|inf) at step \d+; nothing was saved yet"):
        train(replace(plan, learning_rate=1e30, grad_clip=1e30), QUIET)
    assert list(plan.out.iterdir()) == []


def test_weights_that_are_no_numbers_end_in_the_next_step(plan: TrainSettings) -> None:
    trainer = Trainer(plan, QUIET)
    with torch.no_grad():
        trainer.model.wte.weight.fill_(math.nan)
    with pytest.raises(SlmxError, match=r"^loss is nan at step 0; nothing was saved yet; start again with a lower"):
        trainer._one_step(trainer.model)


def test_weights_that_are_no_numbers_are_never_saved(plan: TrainSettings) -> None:
    with interrupted_after(2):
        assert not train(plan, QUIET)
    before = sha256_of(plan.out / "last" / "model.safetensors")
    trainer = Trainer(replace(plan, resume=True), QUIET)
    with torch.no_grad():
        trainer.model.wte.weight[0] = math.nan
    with pytest.raises(SlmxError, match="bits per byte is nan at step 2; the last good state is"):
        trainer._evaluate(1.0, 1.0)
    assert sha256_of(plan.out / "last" / "model.safetensors") == before
    assert not (plan.out / "best").exists()


def test_a_gradient_that_is_no_number_changes_no_weight(plan: TrainSettings) -> None:
    trainer = Trainer(plan, QUIET)
    before = trainer.model.wte.weight.detach().clone()
    trainer.model.wte.weight.register_hook(lambda grad: grad * math.inf)  # type: ignore[no-untyped-call]
    with pytest.raises(SlmxError, match=r"the gradient's norm is (nan|inf) at step 0"):
        trainer._one_step(trainer.model)
    assert torch.equal(trainer.model.wte.weight, before)


def test_a_full_disk_leaves_the_last_save(plan: TrainSettings) -> None:
    with interrupted_after(4):
        assert not train(plan, QUIET)
    before = {path: sha256_of(path) for path in plan.out.rglob("*") if path.is_file()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, hard))
    try:
        with pytest.raises(SlmxError, match=r"cannot write \(File too large\); nothing was changed there"):
            train(replace(plan, resume=True), QUIET)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path: sha256_of(path) for path in plan.out.rglob("*") if path.is_file()} == before
    assert train(replace(plan, resume=True), QUIET)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", -1.0),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("weight_decay", -0.1),
        ("weight_decay", math.nan),
        ("dropout", 1.0),
        ("dropout", math.nan),
        ("grad_clip", 0.0),
        ("grad_clip", math.nan),
        ("eval_every", 0),
        ("seed", -1),
        ("seed", 2**63),
    ],
)
def test_numbers_that_no_run_can_have(plan: TrainSettings, name: str, value: float) -> None:
    changed: dict[str, Any] = {name: value}
    with pytest.raises(SlmxError, match=f"^--{name.replace('_', '-')} .* is out of range$"):
        replace(plan, **changed)


@pytest.mark.parametrize(
    "settings_", [{"seed": 2**63 - 1}, {"weight_decay": 0.0, "dropout": 0.0, "grad_clip": math.inf}]
)
def test_numbers_at_the_edge(plan: TrainSettings, settings_: dict[str, Any]) -> None:
    assert train(replace(plan, steps=2, **settings_), QUIET)


@pytest.mark.parametrize("where", ["file", "file/run"])
def test_a_folder_that_cannot_be_made_is_known_before_the_first_step(
    plan: TrainSettings, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("here before")
    monkeypatch.setattr(Trainer, "_one_step", None)
    with pytest.raises(SlmxError, match="cannot make the folder"):
        train(replace(plan, out=tmp_path / where), QUIET)
    assert (tmp_path / "file").read_text() == "here before"


def slmx_train(monkeypatch: pytest.MonkeyPatch, *args: str | Path) -> int:
    """Exit code of the command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["slmx", "train", "--preset", "tiny", "--no-compile", *map(str, args)])
    with pytest.raises(SystemExit) as exit_:
        main()
    return int(exit_.value.code or 0)


def test_the_command_trains_stops_and_goes_on(
    plan: TrainSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options: list[str | Path] = [
        "--data",
        plan.data[0],
        "--out",
        plan.out,
        "--steps",
        "9",
        "--eval-every",
        "3",
        "--seed",
        "5",
    ]
    options += ["--batch-size", "3", "--learning-rate", "0.005", "--weight-decay", "0.2", "--dropout", "0.05"]
    options += ["--grad-clip", "0.5", "--data-licence", "CC0"]
    with interrupted_after(4):
        assert slmx_train(monkeypatch, *options) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == f"stopped; {plan.out / 'last'} is saved: the same command with --resume goes on"
    assert slmx_train(monkeypatch, *options, "--resume") == 0
    out, err = capsys.readouterr()
    assert out == f"{plan.out / 'best'}\n"
    assert "resumed at step 4 of 9" in err
    assert [line for line in err.splitlines() if line.startswith("step 9/9  loss ")]
    record = load_checkpoint(plan.out / "last").record
    assert record["licence"] == "CC0"
    expected = {
        "steps": 9,
        "warmup": 1,
        "batch_size": 3,
        "learning_rate": 0.005,
        "weight_decay": 0.2,
        "dropout": 0.05,
        "grad_clip": 0.5,
        "eval_every": 3,
        "seed": 5,
    }
    assert record["plan"] == expected


def test_a_line_of_progress_is_not_broken(
    plan: TrainSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert slmx_train(monkeypatch, "--data", plan.data[0], "--out", plan.out, "--steps", "1") == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step 1/1 ")]
    assert line.endswith(" tokens/s  best so far")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", None, "a.txt: cannot read the corpus (No such file or directory)"),
        ("a.txt", b"", "a.txt: holds no story"),
        ("a.txt", b"ab\0c", "a.txt:1: a binary file"),
        ("a.txt", b"once\n\xff\n", "a.txt:2: not UTF-8"),
        (
            "a.jsonl",
            b'{"text": "once"}\n{"story": "twice"}\n',
            'a.jsonl:2: expected a JSON object with a "text" string',
        ),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "a.jsonl:1: expected"),
        ("a.txt", b"One short story.\n" * 2, "shorter than one context of 32"),
    ],
)
def test_unusable_data_is_one_line(
    name: str,
    content: bytes | None,
    said: str,
    plan: TrainSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    for data, valid in ((path, plan.data[0]), (plan.data[0], path)):
        assert slmx_train(monkeypatch, "--data", data, "--valid", valid, "--out", plan.out) == 1
        out, err = capsys.readouterr()
        *talk, line = err.splitlines()
        assert out == ""
        assert line.startswith("slmx: ")
        assert said in line
        assert all(told.startswith(("tokenizer: ", "training: ")) for told in talk)
    assert not plan.out.exists()


def test_too_little_to_hold_out_names_valid(plan: TrainSettings, tmp_path: Path, stories: list[str]) -> None:
    path = tmp_path / "few.txt"
    path.write_text(as_corpus([story for story in stories if not is_held_out(story)][:40]), "utf-8")
    with pytest.raises(SlmxError, match=r"^validation data: the text is 0 tokens.*--valid"):
        train(replace(plan, data=(path,)), QUIET)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--preset", "huge"], "slmx: unknown preset 'huge': choose one of nano, micro, small, medium, small-256, "),
        (["--resume"], "no run to resume here; start it without --resume"),
        (["--learning-rate", "nan"], "slmx: --learning-rate nan is out of range"),
        (["--grad-clip", "-1"], "slmx: --grad-clip -1.0 is out of range"),
        (["--seed", "99999999999999999999"], "slmx: --seed 99999999999999999999 is out of range"),
    ],
)
def test_unusable_options_are_one_line(
    options: list[str],
    said: str,
    plan: TrainSettings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert slmx_train(monkeypatch, "--data", plan.data[0], "--out", plan.out, *options) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("slmx: ")
    assert said in err
    assert not plan.out.exists()


def test_a_process_that_refuses_prints_one_line_and_exits_with_1(tmp_path: Path) -> None:
    ran = run_slmx("train", "--data", tmp_path / "none.txt", "--out", tmp_path / "run", cwd=tmp_path)
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert ran.stderr.splitlines() == [
        f"slmx: {tmp_path / 'none.txt'}: cannot read the corpus (No such file or directory)"
    ]
    assert not (tmp_path / "run").exists()
