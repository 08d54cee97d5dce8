"""Denormal weights are counted, and an import tells of them in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from slm.denormals import count_denormals, denormals_line
from tests.bundles import Slmx

SMALLEST_NORMAL = torch.finfo(torch.float32).tiny
ADVICE = "they can make the steps of fp32 and portable slow; int8, q8, int4 and fp16 store zeros"


@pytest.mark.parametrize("flush", [False, True])
def test_only_numbers_between_zero_and_the_smallest_normal_one_count(flush: bool) -> None:
    values = torch.tensor([[0.0, -0.0, 1e-40, -1e-45], [SMALLEST_NORMAL, -SMALLEST_NORMAL, 1.0, float("inf")]])
    torch.set_flush_denormal(flush)
    try:
        assert count_denormals(values) == 2
        assert count_denormals(values.t()) == 2
    finally:
        torch.set_flush_denormal(False)


def test_the_line_names_the_tensor_with_most() -> None:
    few, many = torch.tensor([1e-40, 1.0]), torch.full((2, 600), 1e-39)
    assert denormals_line({"few": few, "none": torch.ones(3)}) == (
        f"denormal: 1 weight below 1.2e-38, most in few; {ADVICE}"
    )
    assert (denormals_line({"few": few, "many": many}) or "").startswith("denormal: 1,201 weights below")
    assert denormals_line({"none": torch.zeros(3)}) is None


def test_an_import_tells(slmx: Slmx, hf_folder: Path) -> None:
    path = hf_folder / "model.safetensors"
    tensors = load_file(path)
    tensors["transformer.ln_f.bias"][:2] = 1e-40
    save_file(tensors, path, {"format": "pt"})
    ran = slmx("import", hf_folder, "--out", "mine")
    assert ran.code == 0
    assert f"denormal: 2 weights below 1.2e-38, most in ln_f.bias; {ADVICE}" in ran.stderr.splitlines()
