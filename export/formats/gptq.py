"""Rounds the matrices of int4 so that their products change least: GPTQ (Frantar et al., 2022, arXiv:2210.17323).

The inputs of a matrix are rounded one after the other. What one loses is made up by the weights of the inputs after it,
as far as the inputs depend on each other. The model's own stories show how they do, so this needs no text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from export.formats.graph import MATRICES
from export.formats.own_stories import own_stories
from runtimes.engine.arrays import FloatArray
from slm.blocks import Blocks, quantize_blocks
from slm.data.corpus import encode_stories
from slm.model import GPT
from slm.tokenizers.tokenizer import Tokenizer

STORIES, SEED = 32, 1  # not the seed of the stories that variants are compared on
DAMPING = 0.01  # the part of the mean of the Hessian's diagonal that is added to the diagonal

Hessians = Mapping[str, FloatArray]  # by the name of the matrix


def calibrate(model: GPT, tokenizer: Tokenizer) -> Hessians:
    """Returns `input_hessians` for stories that the model samples.

    Raises:
        SlmxError: The model cannot write stories.
    """
    stories = own_stories(model, tokenizer, SEED, STORIES, "int4 needs them: export without --int4")
    ids = (encode_stories([story], tokenizer).ids for story in stories)
    return input_hessians(model, [row[: model.config.block_size].tolist() for row in map(np.asarray, ids)])


@torch.inference_mode()
def input_hessians(model: GPT, texts: Iterable[Sequence[int]]) -> Hessians:
    """Reads texts with a model, and sums up how the inputs of its matrices depend on each other.

    Args:
        model: The model, on the CPU.
        texts: The ids of each text, at most one context.

    Returns:
        For each matrix of the layers, by its name in a graph: the Hessian of the squared error of its outputs, without
        the factor 2 of the paper. That is, for each two inputs, the sum of their products over all positions, float
        [inputs, inputs].
    """
    sums: dict[str, Tensor] = {}

    def add_to(name: str) -> None:
        module = model.get_submodule(name)
        assert isinstance(module, nn.Linear)
        total = sums[name] = torch.zeros(module.in_features, module.in_features)

        def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            rows = inputs[0].flatten(0, 1)
            total.addmm_(rows.T, rows)

        hooks.append(module.register_forward_pre_hook(add))

    hooks: list[torch.utils.hooks.RemovableHandle] = []
    names = {
        f"h.{layer}.{short}.weight": f"h.{layer}.{long}"
        for layer in range(model.config.n_layer)
        for short, long in MATRICES.items()
    }
    try:
        for module_name in names.values():
            add_to(module_name)
        for ids in texts:
            model(torch.tensor([ids]), last_only=True)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: sums[module_name].numpy() for name, module_name in names.items()}


def round_gptq(weights: FloatArray, hessian: FloatArray, bits: int, block: int) -> Blocks:
    """Rounds a matrix to blocks by GPTQ. The scale of a block is fitted when its first weight is rounded.

    Args:
        weights: float [channels, inputs].
        hessian: That of `input_hessians`, float [inputs, inputs].
        bits: Bits of a weight.
        block: The number of weights that share a scale. It divides `inputs`.
    """
    rest, half = weights.astype(np.float64), 2 ** (bits - 1)
    damped = hessian.astype(np.float64)
    # Without any input, as of a layer that is never active, each weight is rounded to the nearest number.
    damped[np.diag_indices_from(damped)] += DAMPING * np.diag(damped).mean() or 1.0
    inverse = np.linalg.cholesky(np.linalg.inv(damped)).T
    numbers = np.empty_like(rest)
    scales = np.empty((len(rest), rest.shape[1] // block), np.float32)
    for index, start in enumerate(range(0, rest.shape[1], block)):
        end = start + block
        scales[:, index] = quantize_blocks(rest[:, start:end].astype(np.float32), bits, block)[1][:, 0]
        scale = scales[:, index].astype(np.float64)
        errors = np.empty((len(rest), block))
        for column in range(start, end):
            numbers[:, column] = np.clip(np.rint(rest[:, column] / scale), -half, half - 1)
            error = (rest[:, column] - numbers[:, column] * scale) / inverse[column, column]
            rest[:, column + 1 : end] -= np.outer(error, inverse[column, column + 1 : end])
            errors[:, column - start] = error
        rest[:, end:] -= errors @ inverse[start:end, end:]
    return Blocks(bits, (numbers + half).astype(np.uint8).reshape(len(rest), -1, block), scales)
