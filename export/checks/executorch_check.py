"""Compares a program of executorch with PyTorch: logits, and greedy tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from export.checks.greedy import greedy_tokens
from export.checks.parity import logit_difference
from export.checks.torch_session import Forward, ForwardCache, float_session
from runtimes.engine.session import Session
from slm.console.errors import SlmxError
from slm.model import GPT
from slm.presets import GPTConfig

LIMIT = 1e-4  # largest difference of a logit, in proportion more if the largest logit exceeds 10
TOKENS = 64


def executorch_session(path: Path, config: GPTConfig) -> Session:
    """Opens a session of a .pte file. It needs the package executorch. Only open a file that this process wrote."""
    return Session(ForwardCache(_load(path), config), config, 1)


def _load(path: Path) -> Forward:
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(path).load_method("forward")

    def forward(ids: Tensor, past: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        # The runtime reuses the memory of its outputs in the next run. A view as input stops the whole process.
        inputs = [ids, *(value.clone(memory_format=torch.contiguous_format) for value in past)]
        logits, *present = (value.clone() for value in method.execute(inputs))
        return logits, present

    return forward


def check_executorch(path: Path, model: GPT) -> float:
    """Compares a .pte file with the model that it was made from, up to the full context.

    Args:
        path: The file.
        model: The model.

    Returns:
        The largest `logit_difference`.

    Raises:
        SlmxError: The difference is too large, or the greedy tokens differ.
    """
    config = model.config
    random = np.random.default_rng(0)
    ids = random.integers(config.vocab_size, size=config.block_size).tolist()
    program, ours = executorch_session(path, config), float_session(model.eval(), 1)
    start, difference = 0, 0.0
    for end in sorted({1, min(18, config.block_size), config.block_size - 1, config.block_size}):
        found, right = program.score(ids[start:end]), ours.score(ids[start:end])
        difference = float(np.maximum(difference, logit_difference(found, right)))
        start = end
    if not difference <= LIMIT:
        raise SlmxError(
            f"executorch: a logit differs by {difference:.1e}, more than {LIMIT:.0e}; nothing was published"
        )
    prompt, count = ids[: config.block_size // 2], min(TOKENS, config.block_size // 2)
    if greedy_tokens(program, prompt, count) != greedy_tokens(ours, prompt, count):
        raise SlmxError("executorch: its greedy tokens are not those of PyTorch; nothing was published")
    return difference
