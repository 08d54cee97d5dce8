"""Training for a variant: the forward pass rounds the numbers that the exported graph rounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from slm.blocks import BLOCK_RECIPES
from slm.model import GPT
from slm.presets import QAT_VARIANTS

TABLES = ("wte.weight", "lm_head.weight")


def matrices(model: GPT) -> dict[str, Tensor]:
    """Returns the parameters that an export of int4 or q8 stores in blocks: all matrices but the positions."""
    return {name: p for name, p in model.named_parameters() if p.dim() == 2 and name != "wpe.weight"}


def trained_for(record: Mapping[str, Any]) -> str | None:
    """Returns the variant that a checkpoint with this training record was trained for, or None."""
    plan = record.get("plan")
    variant = plan.get("qat") if isinstance(plan, dict) else None
    return variant if variant in QAT_VARIANTS else None


def rounded_to_8_bits(x: Tensor) -> Tensor:
    """Rounds activations as onnxruntime's DynamicQuantizeLinear does: to 256 values from the smallest to the largest.

    Rounding has the gradient of the identity. The gradient of an error of rounding goes to the smallest and the
    largest number, which set its size (as the step size of Esser et al., 2020, arXiv:1902.08153, has a gradient).

    Args:
        x: Float [batch, sequence, channels]. Each element of the batch has a range of its own, which includes 0.

    Returns:
        The rounded numbers, of the shape and the type of `x`.
    """
    wide = x.float().flatten(1)
    # min and max have a gradient at one number. That of amin and amax looks for equal ones, which compiled code of
    # bfloat16 does not find: it keeps the numbers in another precision. The gradient is then 0 / 0.
    low, high = wide.min(1, keepdim=True).values.clamp(max=0), wide.max(1, keepdim=True).values.clamp(min=0)
    step = ((high - low) / 255).clamp(min=torch.finfo(torch.float32).tiny)
    zero = _rounded(-low / step)
    return ((_rounded(wide / step + zero) - zero) * step).view_as(x).type_as(x)


def _rounded(x: Tensor) -> Tensor:
    """Returns the nearest whole numbers, with the gradient of the identity."""
    return x + (x.round() - x).detach()


def _round_input(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (rounded_to_8_bits(inputs[0]),)


def _round_output(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return rounded_to_8_bits(output)


@contextmanager
def _rounded_activations(model: GPT) -> Iterator[None]:
    """Rounds the input of every matrix, and of the output head, inside the block."""
    with ExitStack() as hooks:
        for module in model.h.modules():
            if isinstance(module, nn.Linear):
                hooks.enter_context(module.register_forward_pre_hook(_round_input))
        hooks.enter_context(model.ln_f.register_forward_hook(_round_output))
        yield


@contextmanager
def as_exported(model: GPT, variant: str | None) -> Iterator[None]:
    """Lets a model compute as the export of a variant does.

    For int4 and q8 it has the weights that the export writes, bit for bit. For int8 the inputs of its matrices are
    rounded, with one scale for each window. Its weights are not: almost all of what int8 loses comes from these inputs.

    The float weights come back at the end, and gradients stay. Gradients of a loss that is computed inside are those
    at the rounded weights. An optimizer that applies them to the float weights uses the straight-through estimator
    (Bengio et al., 2013, arXiv:1308.3432).

    Args:
        model: The model.
        variant: A name in `slm.presets.QAT_VARIANTS`, or None to change nothing.
    """
    if variant is None:
        yield
        return
    if variant == "int8":
        with _rounded_activations(model):
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
