"""The optimizers of a training run, and their state as named tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from slm.model import GPT
from slm.train.plan import Plan

BETAS = (0.9, 0.99)
MUON_MOMENTUM = 0.95
# What PyTorch's optimizers keep of each parameter: the number of steps, and averages of the parameter's shape.
STATE: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.Muon: ("momentum_buffer",),
}


def build_optimizers(model: GPT, plan: Plan) -> list[torch.optim.Optimizer]:
    """Makes the optimizers of a model: Muon and AdamW, or AdamW alone.

    Muon (Jordan et al., 2024, kellerjordan.github.io/posts/muon) updates the matrices of the blocks, AdamW all other
    parameters. Both are PyTorch's own. Muon's updates are scaled to the size of AdamW's (Liu et al., 2025,
    arXiv:2502.16982), so that both use one learning rate. Only parameters with two dimensions decay.
    """
    matrices: list[Tensor] = [p for p in model.h.parameters() if p.dim() >= 2]
    in_blocks = {id(p) for p in matrices}
    tables: list[Tensor] = [p for p in model.parameters() if p.dim() >= 2 and id(p) not in in_blocks]
    others = [p for p in model.parameters() if p.dim() < 2]
    by_adamw = tables if plan.optimizer == "muon" else tables + matrices
    groups = [{"params": by_adamw, "weight_decay": plan.weight_decay}, {"params": others, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=plan.learning_rate, betas=BETAS, fused=True)
    if plan.optimizer == "adamw":
        return [adamw]
    muon = torch.optim.Muon(
        matrices,
        lr=plan.learning_rate,
        weight_decay=plan.weight_decay,
        momentum=MUON_MOMENTUM,
        adjust_lr_fn="match_rms_adamw",
    )
    return [adamw, muon]


def optimizer_tensors(model: GPT, optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Returns the whole state of the optimizers, each tensor with the name `parameter.key`."""
    return {
        f"{name}.{key}": value
        for name, parameter in model.named_parameters()
        for optimizer in optimizers
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizers(model: GPT, optimizers: list[torch.optim.Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """Puts back the state that `optimizer_tensors` returned.

    Raises:
        ValueError: A tensor is of no parameter, or the state of a parameter is not that of its optimizer.
    """
    state: dict[str, dict[str, Tensor]] = {name: {} for name, _ in model.named_parameters()}
    for full_name, tensor in tensors.items():
        name, _, key = full_name.rpartition(".")
        if name not in state:
            raise ValueError(f"no parameter is called {name[:80]!a}")
        state[name][key] = tensor
    for name, parameter in model.named_parameters():
        owner = next(o for o in optimizers for group in o.param_groups if any(p is parameter for p in group["params"]))
        shapes = {key: parameter.shape if key != "step" else torch.Size() for key in STATE[type(owner)]}
        if {key: tensor.shape for key, tensor in state[name].items()} != shapes:
            raise ValueError(f"no state of {name}, or of another optimizer")
        owner.state[parameter] = {key: tensor.to(parameter.device) for key, tensor in state[name].items()}
