"""Numbers that a variant cannot hold, or that make it slow, are told by an export in one line that names the tensor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from slm.checkpoint import load_checkpoint, save_checkpoint
from tests import bundles
from tests.bundles import Slmx

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick")]


def with_weights(tiny_checkpoint: Path, name: str, value: float) -> Path:
    """A checkpoint with a value in the first three places of a tensor."""
    checkpoint, folder = load_checkpoint(tiny_checkpoint), bundles.folder("numbers")
    with torch.no_grad():
        checkpoint.model.get_parameter(name).flatten()[:3] = value
    save_checkpoint(folder, "nano", checkpoint.model, checkpoint.tokenizer, checkpoint.merges, checkpoint.record)
    return folder


def test_denormal_weights_are_counted(slmx: Slmx, tiny_checkpoint: Path) -> None:
    ran = slmx("export", "--checkpoint", with_weights(tiny_checkpoint, "wte.weight", 1e-40), "--out", "b")
    assert ran.code == 0
    assert ran.stderr.splitlines()[0] == (
        "denormal: 3 weights below 1.2e-38, most in wte.weight; "
        "they can make the steps of fp32 and portable slow; int8, q8, int4 and fp16 store zeros"
    )


def test_a_matrix_beyond_float16_is_named(slmx: Slmx, tiny_checkpoint: Path) -> None:
    folder = with_weights(tiny_checkpoint, "h.1.mlp.c_fc.weight", 65536.0)
    line = slmx.refuses_unchanged("export", "--checkpoint", folder, "--no-fp32", "--fp16", "--out", "b")
    assert line == "h.1.c_fc.weight holds values beyond 65,504, the limit of float16; export without --fp16"


def test_the_largest_number_of_float16_is_exported(slmx: Slmx, tiny_checkpoint: Path) -> None:
    folder = with_weights(tiny_checkpoint, "wpe.weight", 65504.0)
    assert slmx("export", "--checkpoint", folder, "--no-fp32", "--fp16", "--out", "b").code == 0


def test_a_norm_is_not_stored_in_float16_and_may_be_larger(slmx: Slmx, tiny_checkpoint: Path) -> None:
    folder = with_weights(tiny_checkpoint, "ln_f.bias", 65536.0)
    assert slmx("export", "--checkpoint", folder, "--no-fp32", "--fp16", "--out", "b").code == 0
