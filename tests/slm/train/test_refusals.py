"""Training refuses wrong settings and files with one line, and nothing is lost."""

from __future__ import annotations

import json
import math
import re
import resource
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from slm.checkpoint import load_checkpoint
from slm.cli import main
from slm.console.errors import SlmxError
from slm.data.prepare import PrepareSettings, prepare
from slm.storage.hashing import sha256_of
from slm.train.hardware import has_bf16
from slm.train.loop import Trainer
from slm.train.plan import TrainSettings
from slm.train.run_folder import RunFolder
from slm.train.train import train
from tests.conftest import run_slmx
from tests.error_lines import said
from tests.runs import QUIET, interrupted_after, last

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_presets")]


def files_of(folder: Path) -> dict[Path, str]:
    return {path: sha256_of(path) for path in folder.rglob("*") if path.is_file()}


def test_a_run_is_neither_overwritten_nor_mixed(settings: TrainSettings, tmp_path: Path, corpus_file: Path) -> None:
    with pytest.raises(SlmxError, match="no run to resume"):
        train(replace(settings, resume=True), QUIET)
    settings = replace(settings, steps=8)
    assert train(settings, QUIET)
    with pytest.raises(SlmxError, match="holds a finished run; to train it further: slmx train --init "):
        train(settings, QUIET)
    other = tmp_path / "other"
    prepare(PrepareSettings((str(corpus_file),), "nano", other, licence="other", vocab_size=300), QUIET)
    alien = tmp_path / "alien"
    prepare(PrepareSettings((str(corpus_file),), "nano", alien, vocab_size=299), QUIET)
    settings = replace(settings, resume=True)
    changed = {
        "has steps 8, not 24": replace(settings, steps=24),
        "has learning_rate 0.01, not 0.02": replace(settings, learning_rate=0.02),
        "has batch_size 4, not 8": replace(settings, batch_size=8),
        "has optimizer muon, not adamw": replace(settings, optimizer="adamw"),
        "has seed 1, not 2": replace(settings, seed=2),
        "a checkpoint of tiny, not other; leave out --preset": replace(settings, preset="other"),
        "has its own shape; leave out --arch, --block-size": replace(settings, n_layer=2),
        "made from other data": replace(settings, text=(str(other),)),
        "made from other data than --text; leave out --text, because": replace(settings, text=(str(alien),)),
        "leave out --text, because the run knows its data set": replace(settings, text=(str(corpus_file),)),
    }
    before = files_of(settings.out)
    for message, settings_ in changed.items():
        with pytest.raises(SlmxError, match=message):
            train(settings_, QUIET)
    assert files_of(settings.out) == before


@pytest.mark.parametrize("damage", ["missing", "truncated", "of another model"])
def test_a_damaged_optimizer_state_is_named(settings: TrainSettings, damage: str) -> None:
    with interrupted_after(3):
        assert train(settings, QUIET) is None
    state = last(settings.out) / "optimizer.safetensors"
    if damage == "missing":
        state.unlink()
    elif damage == "truncated":
        state.write_bytes(state.read_bytes()[:-9])
    else:
        shutil.copyfile(last(settings.out) / "model.safetensors", state)
    with pytest.raises(
        SlmxError, match=r"optimizer\.safetensors: (cannot read|truncated or altered) .*delete .* to resume from"
    ):
        train(replace(settings, resume=True), QUIET)
    shutil.rmtree(last(settings.out))
    assert train(replace(settings, resume=True), QUIET)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "missing or damaged, so it does not say where"),
        (b"", "missing or damaged, so it does not say where"),
        (b"{}", "missing or damaged, so it does not say where"),
        (b"[]", "missing or damaged, so it does not say where"),
        (b'{"data": 5}', "missing or damaged, so it does not say where"),
        (b'{"data": "a \xff"}', "missing or damaged, so it does not say where"),
        (b"[" * 100_000, "missing or damaged, so it does not say where"),
        (b'{"data": "moved away"}', "says that the data set is moved away, but none is there"),
    ],
    ids=["missing", "empty", "no-entry", "a-list", "a-number", "not-utf-8", "deep", "moved"],
)
def test_a_run_that_lost_its_data_set_asks_for_the_text_and_takes_it(
    settings: TrainSettings, content: bytes | None, message: str
) -> None:
    with interrupted_after(3):
        assert train(settings, QUIET) is None
    if content is None:
        (settings.out / "run.json").unlink()
    else:
        (settings.out / "run.json").write_bytes(content)
    alone = TrainSettings(settings.out, compile=False, precision="fp32", resume=True)
    with pytest.raises(SlmxError, match=rf"run\.json: {message}.*; give it with --text$"):
        train(alone, QUIET)
    assert train(replace(alone, text=settings.text), QUIET)


def test_lines_of_the_metrics_that_cannot_be_used_are_left_out(settings: TrainSettings) -> None:
    with interrupted_after(20):
        assert train(settings, QUIET) is None
    good = RunFolder(settings.out).metrics()
    odd = [b"{}", b'{"loss": 1.0}', b'{"step": "1", "loss": 1.0}', b'{"step": 1, "loss": "low"}', b'{"step": 1, "lo']
    odd += [b"5", b"null", b"", b"\xff\xfe", b"[" * 100_000, b'{"step": true, "loss": 1.0}']
    with (settings.out / "metrics.jsonl").open("ab") as file:
        file.write(b"\n".join(odd) + b"\n")
    assert RunFolder(settings.out).metrics() == good
    assert train(replace(settings, resume=True), QUIET)
    lines = (settings.out / "metrics.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines[: len(good)]] == good
    assert [json.loads(line)["step"] for line in lines[len(good) :]] == [24, 24]


def rewrite_record(checkpoint: Path, record: object) -> None:
    """Replaces a checkpoint's training record and its hash, as a user's script might."""
    (checkpoint / "training.json").write_text(record if isinstance(record, str) else json.dumps(record), "utf-8")
    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    config["sha256"]["training.json"] = sha256_of(checkpoint / "training.json")
    (checkpoint / "config.json").write_text(json.dumps(config), "utf-8")


@pytest.mark.parametrize(
    "changes",
    [
        {"plan": None},
        {"plan": {}},
        {"plan": {"steps": 24}},
        {"dataset_sha256": 5},
        {"steps_done": None},
        {"steps_done": -1},
        {"steps_done": True},
        {"steps_done": 1000},
        {"steps_done": 24, "curve": []},
        {"seconds": "long"},
        {"curve": {}},
        {"curve": [{"step": 8}]},
        {"curve": ["low"]},
        {"init": "somewhere"},
        {"unlogged_losses": 2.5},
        {"unlogged_losses": [2.5, None]},
    ],
    ids=json.dumps,
)
def test_an_odd_training_record_is_named_and_the_checkpoint_before_is_taken(
    settings: TrainSettings, changes: dict[str, Any]
) -> None:
    with interrupted_after(11):
        assert train(settings, QUIET) is None
    newest = last(settings.out)
    record = load_checkpoint(newest).record
    rewrite_record(newest, record | changes)
    with pytest.raises(SlmxError) as caught:
        train(replace(settings, resume=True), QUIET)
    message = str(caught.value)
    assert message.startswith(f"{newest / 'training.json'}: not ")
    assert message.endswith(f"delete {newest.name} to resume from step-0000008")
    shutil.rmtree(newest)
    assert train(replace(settings, resume=True), QUIET)


@pytest.mark.parametrize("record", [{}, "{"])
def test_the_only_checkpoint_of_a_run_is_not_said_to_have_one_before_it(
    settings: TrainSettings, record: object
) -> None:
    with interrupted_after(0):
        assert train(settings, QUIET) is None
    rewrite_record(last(settings.out), record)
    with pytest.raises(SlmxError, match=r"training\.json: not .* begin a new run with another --out$"):
        train(replace(settings, resume=True), QUIET)


@pytest.mark.parametrize("record", ["", "{", "[]", "5", "null", "[" * 100_000], ids=lambda text: text[:2] or "empty")
def test_a_training_record_that_is_none_is_one_line(settings: TrainSettings, record: str) -> None:
    with interrupted_after(3):
        assert train(settings, QUIET) is None
    rewrite_record(last(settings.out), record)
    with pytest.raises(
        SlmxError, match=r"training\.json: not .*, or delete step-0000003 to resume from step-0000000$"
    ) as caught:
        train(replace(settings, resume=True), QUIET)
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_numbers_are_refused_on_resume(settings: TrainSettings) -> None:
    with interrupted_after(3):
        assert train(settings, QUIET) is None
    trainer = Trainer(replace(settings, resume=True), QUIET)
    with torch.no_grad():
        trainer.model.wte.weight[0] = math.nan
    trainer.save_step()
    with pytest.raises(SlmxError, match=r"'wte\.weight' holds NaN or infinity; .*, or delete step-0000003 to resume"):
        train(replace(settings, resume=True), QUIET)


def test_a_loss_that_is_no_number_names_step_batch_and_checkpoint(settings: TrainSettings) -> None:
    with pytest.raises(SlmxError) as caught:
        train(replace(settings, learning_rate=1e18, grad_clip=1e18, optimizer="adamw"), QUIET)
    message = str(caught.value)
    assert "\n" not in message
    assert " at step " in message
    assert " (windows at tokens " in message
    assert f"the last good checkpoint is {last(settings.out)}; start again with a lower --learning-rate" in message
    assert load_checkpoint(last(settings.out)).record["steps_done"] == 0


def test_weights_that_are_no_numbers_are_never_saved(settings: TrainSettings) -> None:
    with interrupted_after(2):
        assert train(settings, QUIET) is None
    before = sha256_of(last(settings.out) / "model.safetensors")
    trainer = Trainer(replace(settings, resume=True), QUIET)
    with torch.no_grad():
        trainer.model.wte.weight[0] = math.nan
    with pytest.raises(SlmxError, match=r"bits per byte is nan at step 2 \(validation\); the last good checkpoint is"):
        trainer.evaluate(1.0, 1.0)
    assert sha256_of(last(settings.out) / "model.safetensors") == before
    assert not (settings.out / "best").exists()


def test_a_gradient_that_is_no_number_changes_no_weight(settings: TrainSettings) -> None:
    trainer = Trainer(settings, QUIET)
    before = trainer.model.wte.weight.detach().clone()
    trainer.model.wte.weight.register_hook(lambda grad: grad * math.inf)  # type: ignore[no-untyped-call]
    with pytest.raises(SlmxError, match=r"the gradient's norm is (nan|inf) at step 0"):
        trainer.train_step()
    assert torch.equal(trainer.model.wte.weight, before)


def test_a_full_disk_leaves_the_last_save(settings: TrainSettings) -> None:
    with interrupted_after(4):
        assert train(settings, QUIET) is None
    before = files_of(last(settings.out))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, hard))
    try:
        with pytest.raises(SlmxError, match=r"cannot write \(File too large\); nothing was changed there"):
            train(replace(settings, resume=True), QUIET)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files_of(last(settings.out)) == before
    assert train(replace(settings, resume=True), QUIET)


@pytest.mark.parametrize("given", [{"seed": 2**63 - 1}, {"weight_decay": 0.0, "dropout": 0.0, "grad_clip": 1e18}])
def test_numbers_at_the_edge(settings: TrainSettings, given: dict[str, Any]) -> None:
    assert train(replace(settings, steps=2, **given), QUIET)
    assert load_checkpoint(settings.out).record["plan"].items() >= given.items()


@pytest.mark.parametrize("where", ["file", "file/run"])
def test_a_folder_that_cannot_be_made_is_known_before_the_first_step(
    settings: TrainSettings, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("here before")
    monkeypatch.setattr(Trainer, "train_step", None)
    with pytest.raises(SlmxError, match=r"cannot (make the folder|write)|a file stands where"):
        train(replace(settings, out=tmp_path / where), QUIET)
    assert (tmp_path / "file").read_text() == "here before"


def test_a_process_of_another_precision_is_not_blamed_on_trackers(settings: TrainSettings) -> None:
    Accelerator(mixed_precision="bf16", cpu=True)
    with pytest.raises(SlmxError, match="cannot set up the devices: AcceleratorState has already been initialized"):
        train(settings, QUIET)
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_batch_that_does_not_split_is_refused(settings: TrainSettings) -> None:
    with pytest.raises(SlmxError, match="a batch of 4 does not split into 3 accumulated parts on 1 process;"):
        train(replace(settings, accumulate=3), QUIET)


def test_bf16_is_refused_where_it_is_emulated(settings: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert not has_bf16(torch.device("cpu"))
    with pytest.raises(SlmxError, match="--precision bf16: this cpu does not multiply bf16"):
        train(replace(settings, precision="bf16"), QUIET)


def test_an_unknown_tracker_is_refused(settings: TrainSettings) -> None:
    with pytest.raises(SlmxError, match=r"^--track nosuch: ."):
        train(replace(settings, track=("nosuch",)), QUIET)


def slmx_train(monkeypatch: pytest.MonkeyPatch, *args: str | Path) -> int:
    """Exit code of the command, run in this process."""
    options = ["slmx", "train", "--no-compile", "--precision", "fp32", *map(str, args)]
    monkeypatch.setattr(sys, "argv", options)
    with pytest.raises(SystemExit) as exit_:
        main()
    return int(exit_.value.code or 0)


def test_the_command_trains_stops_and_goes_on(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = {"steps": 9, "eval-every": 3, "seed": 5, "batch-size": 4, "accumulate": 2, "optimizer": "adamw"}
    numbers |= {"learning-rate": 0.005, "weight-decay": 0.2, "dropout": 0.05, "grad-clip": 0.5}
    numbers |= {"eval-tokens": 320, "patience": 7}
    options = [part for name, value in numbers.items() for part in (f"--{name}", str(value))]
    where: list[str | Path] = ["--out", settings.out]
    with interrupted_after(4):
        code = slmx_train(
            monkeypatch, "--preset", "tiny", "--text", settings.text[0], "--licence", "CC0", *options, *where
        )
    assert code == 130
    out, err = capsys.readouterr()
    assert out == ""
    advice = f"slmx train --resume --out {shlex.quote(str(settings.out))}"
    assert err.splitlines()[-1] == f"stopped and saved; continue with: {advice}"
    assert slmx_train(monkeypatch, "--resume", *where) == 0
    out, err = capsys.readouterr()
    assert out == f"{settings.out / 'best'}\n"
    assert "resumed at step 4 of 9" in err
    (line,) = [line for line in err.splitlines() if line.startswith("step 9/9  loss ")]
    assert re.fullmatch(r"step 9/9  loss [\d.]+  validation loss [\d.]+, [\d.]+ bits per byte  [\d,]+ tokens/s.*", line)
    assert " floating-point operations, " in err
    record = load_checkpoint(last(settings.out)).record
    given = {name.replace("-", "_"): value for name, value in numbers.items()}
    assert record["plan"] == given | {"warmup": 1, "qat": None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--preset", "huge"],
            "--preset: unknown preset 'huge': choose one of nano, micro, small, medium, small-256, ",
        ),
        (["--resume"], "no run to resume here; start it without --resume"),
        (["--learning-rate", "nan"], "--learning-rate nan is out of range; it is above 0"),
        (["--grad-clip", "-1"], "--grad-clip -1.0 is out of range; it is above 0"),
        (
            ["--seed", "99999999999999999999"],
            "--seed 99999999999999999999 is out of range; it is 0 to 9223372036854775807",
        ),
        (["--n-head", "0"], "--n-head 0 is out of range; it is 1 to 1099511627776"),
        (["--n-layer", "0"], "--n-layer 0 is out of range; it is 1 to 1099511627776"),
        (["--n-embd", str(2**41)], f"--n-embd {2**41} is out of range; it is 1 to 1099511627776"),
        (["--block-size", "0"], "--block-size 0 is out of range; it is 1 to 1099511627776"),
        (["--n-head", "3"], "--n-head 3: model shape: 3 heads do not divide n_embd 128"),
        (["--optimizer", "lion"], "--optimizer: unknown optimizer 'lion': choose one of muon, adamw"),
        (
            ["--precision", "fp64"],
            "--precision: unknown precision 'fp64': choose one of auto, fp32, bf16",
        ),
        (["--arch", "lama"], "--arch: unknown architecture 'lama' (did you mean llama?): choose one of gpt2, llama"),
        (["--track", "wandbox"], "--track: unknown tracker 'wandbox' (did you mean wandb?): choose one of tensorboard"),
    ],
)
def test_unusable_options_are_one_line(
    options: list[str],
    message: str,
    settings: TrainSettings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert slmx_train(monkeypatch, "--text", settings.text[0], "--out", settings.out, *options) == (
        code := 1 if "resume" in message else 2
    )
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert message in said(line, code)
    assert not settings.out.exists()


def test_a_process_that_refuses_prints_one_line_and_exits_with_1(tmp_path: Path) -> None:
    ran = run_slmx("train", "--text", tmp_path / "none.txt", "--out", tmp_path / "run", cwd=tmp_path)
    assert ran.returncode == 1
    assert ran.stdout == ""
    (line,) = ran.stderr.splitlines()
    assert line.startswith("slmx: ")
    assert str(tmp_path / "none.txt") in line
