"""Training for a variant in blocks of weights: the forward pass uses the weights that an export will write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from slm.blocks import BLOCK_RECIPES
from slm.model import GPT
from slm.presets import BLOCK_VARIANTS

TABLES = ("wte.weight", "lm_head.weight")


def matrices(model: GPT) -> dict[str, Tensor]:
    """Returns the parameters that an export stores in blocks: all matrices except the table of positions."""
    return {name: p for name, p in model.named_parameters() if p.dim() == 2 and name != "wpe.weight"}


def trained_for(record: Mapping[str, Any]) -> str | None:
    """Returns the variant that a checkpoint with this training record was trained for, or None."""
    plan = record.get("plan")
    variant = plan.get("qat") if isinstance(plan, dict) else None
    return variant if variant in BLOCK_VARIANTS else None


@contextmanager
def as_exported(model: GPT, variant: str | None) -> Iterator[None]:
    """Gives a model the weights that the export of a variant writes, bit for bit.

    The float weights come back at the end, and gradients stay. Gradients of a loss that is computed inside are those
    at the rounded weights. An optimizer that applies them to the float weights uses the straight-through estimator
    (Bengio et al., 2013, arXiv:1308.3432).

    Args:
        model: The model.
        variant: A name in `slm.presets.BLOCK_VARIANTS`, or None to change nothing.
    """
    if variant is None:
        yield
        return
    recipe, kept = BLOCK_RECIPES[variant], []
    with torch.no_grad():
        for name, parameter in matrices(model).items():
            kept.append((parameter, parameter.clone()))
            blocks = recipe.quantize(parameter.detach().cpu().numpy(), is_table=name in TABLES)
            parameter.copy_(torch.from_numpy(blocks.weights()))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, weights in kept:
                parameter.copy_(weights)
