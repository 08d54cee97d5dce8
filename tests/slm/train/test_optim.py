"""The state of the optimizers comes back whole, or is refused before a step uses it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from slm.model import GPT
from slm.presets import GPTConfig
from slm.train.optim import build_optimizers, optimizer_tensors, restore_optimizers

Tensors = dict[str, Tensor]


def made(optimizer: str) -> tuple[GPT, list[torch.optim.Optimizer]]:
    torch.manual_seed(0)
    model = GPT(GPTConfig(block_size=8, vocab_size=20, n_layer=1, n_head=1, n_embd=8))
    plan = SimpleNamespace(optimizer=optimizer, weight_decay=0.1, learning_rate=1e-3)
    return model, build_optimizers(model, plan)  # type: ignore[arg-type]


def stepped(optimizer: str) -> Tensors:
    model, optimizers = made(optimizer)
    model(torch.zeros(1, 4, dtype=torch.long)).sum().backward()
    for one in optimizers:
        one.step()
    return optimizer_tensors(model, optimizers)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_state_comes_back(optimizer: str) -> None:
    tensors = stepped(optimizer)
    model, optimizers = made(optimizer)
    restore_optimizers(model, optimizers, tensors)
    again = optimizer_tensors(model, optimizers)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)


CHANGES: dict[str, Callable[[Tensors], object]] = {
    "no state of wte.weight": lambda t: t.pop("wte.weight.exp_avg"),
    "no parameter is called 'wte'": lambda t: t.update({"wte.exp_avg": torch.zeros(2)}),
    "no state of ln_f.weight": lambda t: t.update({"ln_f.weight.exp_avg": torch.zeros(3)}),
    "no state of ln_f.bias": lambda t: t.update({"ln_f.bias.momentum_buffer": torch.zeros(8)}),
    "no state of wpe.weight": lambda t: t.update({"wpe.weight.step": torch.zeros(5)}),
}


@pytest.mark.parametrize("said", CHANGES)
def test_a_state_that_is_not_that_of_the_optimizer_is_refused(said: str) -> None:
    tensors = stepped("adamw")
    CHANGES[said](tensors)
    model, optimizers = made("adamw")
    with pytest.raises(ValueError, match=said):
        restore_optimizers(model, optimizers, tensors)
