"""A model that computes NaN or infinity is refused in one line before any work is done."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from export.checks.float_model import EvalText, FloatModel, check_finite, eval_text
from export.formats import own_stories
from slm.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from slm.console.errors import SlmxError
from slm.data.corpus import encode_stories
from tests import bundles
from tests.bundles import Slmx

ADVICE = "its training diverged: export an earlier checkpoint (--checkpoint DIR) or train again"


@pytest.fixture
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    """A checkpoint whose model a test may damage."""
    return load_checkpoint(tiny_checkpoint)


def saved(checkpoint: Checkpoint) -> Path:
    folder = bundles.folder("spoilt é %#")
    save_checkpoint(folder, "nano", checkpoint.model, checkpoint.tokenizer, checkpoint.merges, checkpoint.record)
    return folder


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["wte.weight", "h.1.mlp.c_fc.bias", "ln_f.weight"])
def test_a_weight_that_is_no_number_is_named_before_any_work(
    slmx: Slmx, checkpoint: Checkpoint, name: str, value: float
) -> None:
    with torch.no_grad():
        checkpoint.model.get_parameter(name).flatten()[-1] = value
    folder = saved(checkpoint)
    ran = slmx("export", "--checkpoint", folder, "--out", "b")
    assert (ran.code, ran.stdout) == (1, "")
    where = folder / "model.safetensors"
    assert ran.stderr.startswith(f"slmx: {where}: '{name}' holds NaN or infinity; ")
    assert ran.stderr.count("\n") == 1
    assert not Path("b").exists()


@pytest.mark.parametrize("token", [0, -1])
def test_finite_weights_with_logits_that_overflow_are_refused_before_any_work(
    slmx: Slmx, checkpoint: Checkpoint, token: int
) -> None:
    with torch.no_grad():
        checkpoint.model.wte.weight[token] = 3e38
    folder = saved(checkpoint)
    ran = slmx("export", "--checkpoint", folder, "--out", "b")
    assert ran.stderr == f"slmx: {folder}: the model computes logits that are NaN or infinite; {ADVICE}\n"
    assert not Path("b").exists()


def test_a_sound_model_passes(checkpoint: Checkpoint) -> None:
    check_finite(checkpoint.model, "a model")


def test_logits_that_are_no_numbers_on_the_text_are_one_line(checkpoint: Checkpoint, stories: list[str]) -> None:
    text = EvalText(encode_stories(stories, checkpoint.tokenizer), "s.txt")
    with torch.no_grad():
        checkpoint.model.get_parameter("ln_f.bias")[0] = float("nan")
    with pytest.raises(SlmxError, match=r"logits for s\.txt are NaN or infinite"):
        FloatModel(checkpoint.model, text, 256)


def test_sampling_that_meets_no_number_is_one_line(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    # The check reads one context and not every sequence of tokens, so a story may still overflow.
    monkeypatch.setattr(own_stories, "sample_stories", lambda *args: torch.multinomial(torch.tensor([float("nan")]), 1))
    with pytest.raises(SlmxError, match=r"^the float model cannot write stories \(.*nan.*--text FILE$"):
        eval_text(checkpoint.model, checkpoint.tokenizer, None)
