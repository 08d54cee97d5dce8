"""GPTQ: which sums it takes from a model, and what its rounding keeps."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
import torch

from export.formats import own_stories
from export.formats.gptq import calibrate, input_hessians, round_gptq
from export.formats.graph import matrix_names
from slm.blocks import Blocks, quantize_blocks
from slm.checkpoint import load_checkpoint
from slm.console.errors import SlmxError
from tests import bundles
from tests.shapes import ARCHITECTURES

Array = npt.NDArray[np.float32]
BLOCK = 32


def normal(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def hessian_of(inputs: Array) -> Array:
    return inputs.T @ inputs


@pytest.mark.parametrize("bits", [4, 8])
def test_products_change_less_than_by_the_nearest_numbers(bits: int) -> None:
    weights = normal(24, 4 * BLOCK)
    mixed = normal(4 * BLOCK, 4 * BLOCK) * np.geomspace(1, 0.05, 4 * BLOCK, dtype=np.float32)[:, None]
    inputs = np.random.default_rng(1).standard_normal((500, 4 * BLOCK)).astype(np.float32) @ mixed
    nearest = Blocks(bits, *quantize_blocks(weights, bits, BLOCK))
    rounded = round_gptq(weights, hessian_of(inputs), bits, BLOCK)
    ours, theirs = (np.square(inputs @ (b.weights() - weights).T).sum() for b in (rounded, nearest))
    assert ours < 0.5 * theirs
    assert rounded.values.shape == nearest.values.shape
    assert rounded.scales.dtype == np.float32


@pytest.mark.parametrize("hessian", [3 * np.eye(2 * BLOCK, dtype=np.float32), np.zeros((2 * BLOCK,) * 2, np.float32)])
def test_of_inputs_that_do_not_depend_on_each_other_it_takes_the_nearest_numbers(hessian: Array) -> None:
    weights = normal(24, 2 * BLOCK)
    rounded = round_gptq(weights, hessian, 4, BLOCK)
    numbers, scales = quantize_blocks(weights, 4, BLOCK)
    np.testing.assert_array_equal(rounded.values, numbers)
    np.testing.assert_array_equal(rounded.scales, scales)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_sums_are_those_of_the_inputs_of_each_matrix(name: str) -> None:
    model = bundles.random_model(ARCHITECTURES[name])
    seen: list[torch.Tensor] = []
    layer = model.get_submodule("h.0.mlp.c_proj")
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    texts = [[1, 2, 3, 4, 5], [7]]
    found = input_hessians(model, texts)
    hook.remove()
    assert [*found] == matrix_names(model.config)[:-1]
    rows = torch.cat(seen).numpy()
    assert len(rows) == 6
    np.testing.assert_allclose(found["h.0.mlp_proj.weight"], hessian_of(rows), rtol=1e-4, atol=1e-5)
    assert not layer._forward_pre_hooks


def test_a_model_that_cannot_write_is_refused_in_one_line(tiny_checkpoint: Path) -> None:
    def fail(*_: object) -> list[str]:
        raise RuntimeError("probability tensor contains nan\nmore")

    checkpoint = load_checkpoint(tiny_checkpoint)
    with (
        mock.patch.object(own_stories, "sample_stories", fail),
        pytest.raises(SlmxError, match=r"cannot write stories \(probability .* nan more\).*without --int4$"),
    ):
        calibrate(checkpoint.model, checkpoint.tokenizer)
