"""Training: it learns, it resumes exactly, and it refuses in one line."""

from __future__ import annotations

import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import load_file

import slm.train
from slm.checkpoint import load_checkpoint
from slm.cli import main
from slm.corpus import TokenStream, encode_stories, is_held_out, read_stories
from slm.errors import SlmxError
from slm.evaluate import evaluate
from slm.hashing import sha256_of
from slm.presets import PRESETS, GPTConfig, Preset
from slm.train import Trainer, TrainSettings, batch_at, train
from tests.conftest import as_corpus, run_slmx

QUIET = Console(quiet=True)
TINY = Preset("tiny", GPTConfig(32, 300, 1, 2, 16), learning_rate=1e-2, batch_size=4)
OTHER = Preset("other", GPTConfig(32, 300, 1, 2, 24), learning_rate=1e-2, batch_size=4)

# The command with the preset of these tests; it waits in step 5, so that it can be stopped there.
CHILD = """
import sys, time
from pathlib import Path
import torch
import slm.train
from slm.cli import main
from slm.presets import PRESETS, GPTConfig, Preset

torch.set_num_threads(1)
PRESETS["tiny"] = Preset("tiny", GPTConfig(32, 300, 1, 2, 16), learning_rate=1e-2, batch_size=4)
slm.train._precision = lambda device: torch.float32
waits, goes_on = Path("waits"), Path("goes_on")
batch_at = slm.train.batch_at


def waiting_batch_at(*args):
    if args[-1] == 5:
        waits.touch()
        while not goes_on.exists():
            time.sleep(0.02)
    return batch_at(*args)


slm.train.batch_at = waiting_batch_at
main()
"""


@pytest.fixture(autouse=True)
def tiny_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Presets that train in a second, on the CPU in float32 wherever the tests run."""
    monkeypatch.setitem(PRESETS, TINY.name, TINY)
    monkeypatch.setitem(PRESETS, OTHER.name, OTHER)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(slm.train, "_precision", lambda device: torch.float32)


@pytest.fixture
def plan(corpus_file: Path, tmp_path: Path) -> TrainSettings:
    return TrainSettings("tiny", (corpus_file,), tmp_path / "run", steps=24, eval_every=8, compile=False)


def tensors(file: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = load_file(file)
    return loaded


def assert_same_run(one: Path, other: Path) -> None:
    """The same bits in the weights and in the optimizer's state."""
    for name in ("model.safetensors", "optimizer.safetensors"):
        first, second = tensors(one / "last" / name), tensors(other / "last" / name)
        assert first.keys() == second.keys()
        assert first
        for key, tensor in first.items():
            assert torch.equal(tensor, second[key]), key


@contextmanager
def interrupted_after(steps: int) -> Iterator[None]:
    """Within it, Ctrl-C arrives as soon as a run has done that many steps; before the first for 0."""
    one_step, flag = Trainer._one_step, slm.train._interrupt_flag

    @contextmanager
    def early_flag() -> Iterator[list[bool]]:
        with flag() as raised:
            if not steps:
                os.kill(os.getpid(), signal.SIGINT)
            yield raised

    def step(self: Trainer, forward: Callable[[torch.Tensor], torch.Tensor]) -> float:
        loss = one_step(self, forward)
        if self.step == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_one_step", step)
        patch.setattr(slm.train, "_interrupt_flag", early_flag)
        yield


def test_it_learns_and_records_what_it_did(plan: TrainSettings, corpus_file: Path) -> None:
    stories = list(read_stories([corpus_file]))
    held_out = [story for story in stories if is_held_out(story)]
    assert train(replace(plan, licence="MIT", steps=160, eval_every=40, learning_rate=0.02), QUIET)
    best, last = load_checkpoint(plan.out / "best"), load_checkpoint(plan.out / "last")
    record = last.record
    curve = record["curve"]
    assert [point["step"] for point in curve] == [40, 80, 120, 160]
    assert curve[-1]["loss"] < curve[0]["loss"] - 0.3
    figures = [point["bits_per_byte"] for point in curve]
    assert figures[-1] < 0.9 * figures[0]
    assert best.record["best"]["bits_per_byte"] == min(figures)
    stream = encode_stories(held_out, best.tokenizer)
    assert evaluate(best.model, stream) == pytest.approx(min(figures), rel=1e-3)
    assert evaluate(last.model, stream) == pytest.approx(figures[-1], rel=1e-4)
    assert record["data"] == [
        {
            "side": "training",
            "file": "stories.txt",
            "bytes": corpus_file.stat().st_size,
            "sha256": sha256_of(corpus_file),
        }
    ]
    expected: dict[str, Any] = {
        "licence": "MIT",
        "parameters": sum(p.numel() for p in last.model.parameters()),
        "steps_done": 160,
        "tokens_seen": 160 * 4 * 32,
        "precision": "float32",
        "device": "cpu",
        "torch": torch.__version__,
    }
    assert {name: record[name] for name in expected} == expected
    assert (record["plan"]["seed"], record["plan"]["batch_size"], record["plan"]["steps"]) == (1, 4, 160)
    learnt_from = encode_stories([story for story in stories if not is_held_out(story)], last.tokenizer)
    assert record["training_tokens"] == len(learnt_from.ids)
    assert record["seconds"] > 0
    assert {t.dtype for t in tensors(plan.out / "best" / "model.safetensors").values()} == {torch.float16}
    assert {t.dtype for t in tensors(plan.out / "last" / "model.safetensors").values()} == {torch.float32}
    assert sorted(path.name for path in plan.out.iterdir()) == ["best", "last"]


def test_best_stays_when_later_steps_are_worse(plan: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = iter([2.0, 1.0, 3.0])
    monkeypatch.setattr(slm.train, "evaluate", lambda *_: next(figures))
    assert train(plan, QUIET)
    assert load_checkpoint(plan.out / "best").record["steps_done"] == 16
    last = load_checkpoint(plan.out / "last").record
    assert last["steps_done"] == 24
    assert last["best"] == last["curve"][1]
    assert last["best"]["bits_per_byte"] == 1.0


def test_held_out_stories_are_not_trained_on(plan: TrainSettings, corpus_file: Path, tmp_path: Path) -> None:
    def stories_of(stream: TokenStream, trainer: Trainer) -> set[str]:
        pieces = np.split(stream.ids, np.flatnonzero(stream.ids == trainer.tokenizer.end_of_text))
        return {trainer.tokenizer.decode(piece.tolist()) for piece in pieces if len(piece)}

    everything = set(read_stories([corpus_file]))
    trainer = Trainer(plan, QUIET)
    trained, held = stories_of(trainer.train_stream, trainer), stories_of(trainer.valid_stream, trainer)
    assert held == {story for story in everything if is_held_out(story)}
    assert trained == everything - held
    valid = tmp_path / "valid.txt"
    valid.write_text(as_corpus(sorted(everything)[:9]), "utf-8")
    trainer = Trainer(replace(plan, valid=(valid,)), QUIET)
    assert stories_of(trainer.train_stream, trainer) == everything
    assert stories_of(trainer.valid_stream, trainer) == set(sorted(everything)[:9])
    assert [(item["side"], item["file"]) for item in trainer.data] == [
        ("training", "stories.txt"),
        ("validation", "valid.txt"),
    ]


def test_the_seed_and_dropout_decide_the_weights(plan: TrainSettings, tmp_path: Path) -> None:
    runs = {}
    for name, seed, dropout in (("a", 1, 0.0), ("b", 1, 0.0), ("c", 2, 0.0), ("d", 1, 0.5)):
        assert train(replace(plan, steps=3, seed=seed, dropout=dropout, out=tmp_path / name), QUIET)
        runs[name] = tensors(tmp_path / name / "last" / "model.safetensors")["wte.weight"]
    assert torch.equal(runs["a"], runs["b"])
    assert not torch.equal(runs["a"], runs["c"])
    assert not torch.equal(runs["a"], runs["d"])


@pytest.mark.parametrize("stop_at", [0, 1, 8, 13])
def test_a_resumed_run_ends_as_an_uninterrupted_one(plan: TrainSettings, tmp_path: Path, stop_at: int) -> None:
    assert train(replace(plan, out=tmp_path / "whole"), QUIET)
    with interrupted_after(stop_at):
        assert not train(plan, QUIET)
    record = load_checkpoint(plan.out / "last").record
    assert (record["steps_done"], record["tokens_seen"]) == (stop_at, stop_at * 4 * 32)
    assert train(replace(plan, resume=True), QUIET)
    assert_same_run(tmp_path / "whole", plan.out)
    whole, resumed = (load_checkpoint(out / "last").record["curve"] for out in (tmp_path / "whole", plan.out))
    assert [point["bits_per_byte"] for point in whole] == [point["bits_per_byte"] for point in resumed]


def test_a_finished_run_resumed_is_left_as_it_is(plan: TrainSettings, tmp_path: Path) -> None:
    assert train(plan, QUIET)
    shutil.copytree(plan.out, tmp_path / "before")
    assert train(replace(plan, resume=True), QUIET)
    assert_same_run(tmp_path / "before", plan.out)
    assert load_checkpoint(plan.out / "last").record == load_checkpoint(tmp_path / "before" / "last").record


@pytest.mark.parametrize(("signal_", "code", "done"), [(signal.SIGINT, 130, 6), (signal.SIGKILL, -signal.SIGKILL, 4)])
def test_a_stopped_process_leaves_a_run_that_goes_on(
    plan: TrainSettings, tmp_path: Path, signal_: signal.Signals, code: int, done: int
) -> None:
    plan = replace(plan, steps=10, eval_every=4)
    options = ["--preset", "tiny", "--data", str(plan.data[0]), "--out", str(plan.out)]
    options += ["--steps", "10", "--eval-every", "4", "--no-compile"]
    command = [sys.executable, "-c", CHILD, "train", *options]
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, encoding="utf-8") as child:
        until = time.monotonic() + 100
        while not (tmp_path / "waits").exists() and child.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        child.send_signal(signal_)
        (tmp_path / "goes_on").touch()
        _, talk = child.communicate(timeout=60)
    assert child.returncode == code, talk
    assert "Traceback" not in talk
    if signal_ == signal.SIGINT:
        assert talk.splitlines()[-1] == f"stopped; {plan.out / 'last'} is saved: the same command with --resume goes on"
    assert load_checkpoint(plan.out / "last").record["steps_done"] == done
    assert train(replace(plan, resume=True), QUIET)
    assert train(replace(plan, out=tmp_path / "whole"), QUIET)
    assert_same_run(tmp_path / "whole", plan.out)


def test_matrices_alone_decay(plan: TrainSettings) -> None:
    trainer = Trainer(plan, QUIET)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    for parameter in trainer.model.parameters():
        with torch.no_grad():
            parameter.add_(1.0)
        parameter.grad = torch.zeros_like(parameter)
    trainer.optimizer.step()
    for name, parameter in trainer.model.named_parameters():
        kept = 1 - TINY.learning_rate * plan.weight_decay if parameter.dim() >= 2 else 1.0
        torch.testing.assert_close(parameter.detach(), (before[name] + 1) * kept, msg=name)


def test_the_gradient_is_clipped(plan: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(replace(plan, grad_clip=0.01), QUIET)
    norms = []

    def keep_norm() -> None:
        norms.append(
            math.sqrt(sum(float(p.grad.square().sum()) for p in trainer.model.parameters() if p.grad is not None))
        )

    monkeypatch.setattr(trainer.optimizer, "step", keep_norm)
    trainer._one_step(trainer.model)
    assert norms == [pytest.approx(0.01, rel=1e-3)]


def test_the_rate_warms_up_and_falls(plan: TrainSettings) -> None:
    schedule = Trainer(replace(plan, steps=1000), QUIET).plan
    rates = [schedule.learning_rate_at(step) for step in range(1000)]
    peak = rates.index(max(rates))
    assert peak in (schedule.warmup - 1, schedule.warmup)
    assert max(rates) == pytest.approx(1e-2)
    assert rates[0] < 0.02 * max(rates)
    assert sorted(rates[: peak + 1]) == rates[: peak + 1]
    assert sorted(rates[peak:], reverse=True) == rates[peak:]
    assert rates[-1] == pytest.approx(0.05 * max(rates), rel=0.01)


def test_a_step_uses_the_rate_of_the_schedule(plan: TrainSettings) -> None:
    trainer = Trainer(plan, QUIET)
    for step in range(4):
        trainer._one_step(trainer.model)
        assert {group["lr"] for group in trainer.optimizer.param_groups} == {trainer.plan.learning_rate_at(step)}


def test_the_budget_is_twenty_tokens_for_each_parameter(plan: TrainSettings) -> None:
    trainer = Trainer(replace(plan, steps=None), QUIET)
    wanted = 20 * trainer.model.config.parameters
    assert wanted <= trainer.plan.steps * trainer.tokens_per_step < wanted + trainer.tokens_per_step


@settings(max_examples=60, deadline=None)
@given(st.integers(10, 400), st.integers(2, 9), st.integers(1, 5), st.integers(0, 200))
def test_batches_depend_on_the_step_alone_and_an_epoch_repeats_nothing(
    length: int, block: int, batch: int, step: int
) -> None:
    stream = TokenStream(np.arange(length, dtype=np.uint16), length, 1)
    inputs, targets = batch_at(stream, block, batch, 7, step)
    again, _ = batch_at(stream, block, batch, 7, step)
    assert torch.equal(inputs, again)
    assert inputs.shape == (batch, block)
    assert torch.equal(inputs, inputs[:, :1] + torch.arange(block))
    assert torch.equal(targets, inputs + 1)
    assert int(targets.max()) < length
    per_epoch = max(1, (length - block) // block // batch)
    starts = [int(row[0]) for i in range(per_epoch) for row in batch_at(stream, block, batch, 7, i)[0]]
    if (length - 2 * block) // block >= batch:
        assert len(set(starts)) == len(starts)


def test_epochs_differ_and_reach_every_token() -> None:
    stream = TokenStream(np.arange(203, dtype=np.uint16), 203, 1)
    epochs = [[batch_at(stream, 10, 2, 7, epoch * 9 + i)[0] for i in range(9)] for epoch in range(40)]
    assert not torch.equal(epochs[0][0], epochs[1][0])
    seen = {int(token) for epoch in epochs for rows in epoch for token in rows.flatten()}
    assert seen == set(range(202))


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
