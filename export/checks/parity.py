"""Compares a float variant with PyTorch: logits over a grid of batches, lengths and cache fills, and greedy tokens."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from export.checks.torch_session import Forward, empty_past, load_forward
from runtimes.bundle.shape import cache_names
from runtimes.bundle.variants import VARIANTS
from runtimes.engine.cache import open_onnx
from slm.model import GPT, KVCache
from slm.presets import GPTConfig

LogitArray = npt.NDArray[np.float32] | npt.NDArray[np.float64]
# Continues a prompt by a number of ids.
Continue = Callable[[list[int], int], list[int]]
GREEDY_TOKENS = 48
COMMON_LOGIT = 10.0  # logits of story models hardly exceed it; those of larger models reach several times as much
# The `rounding` of ordinary models is smaller. Weights that are much larger than those of trained models make attention
# scores of hundreds, and float32 is then less exact in every runtime.
COMMON_ROUNDING = 1e-5


def open_forward(variant: str, file: Path | bytes, config: GPTConfig, *, trusted: bool = False) -> Forward:
    """Opens a variant as one function of ids and past. ONNX files run on one thread.

    Args:
        variant: The variant's name.
        file: Its file, or the content of it.
        config: The model's shape.
        trusted: Whether a TorchScript or .pt2 file may be loaded.

    Raises:
        SlmxError: The file is a TorchScript or .pt2 file that is not trusted, or it cannot be opened.
    """
    if VARIANTS[variant].is_torch:
        return load_forward(variant, file, trusted=trusted)
    return _onnx_forward(file, config)


def _onnx_forward(file: Path | bytes, config: GPTConfig) -> Forward:
    session = open_onnx(file, threads=1)
    past_names, present_names = cache_names(config.n_layer)

    def forward(input_ids: Tensor, past: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        batch, new = input_ids.shape
        start = past[0].shape[2]
        feed = {
            "input_ids": input_ids.numpy(),
            "attention_mask": np.ones((batch, start + new), np.int64),
            "position_ids": np.tile(np.arange(start, start + new, dtype=np.int64), (batch, 1)),
        }
        feed |= {name: value.numpy() for name, value in zip(past_names, past, strict=True)}
        logits, *present = session.run(["logits", *present_names], feed)
        return torch.from_numpy(logits), [torch.from_numpy(value) for value in present]

    return forward


def parity_cases(config: GPTConfig, chunked_batches: bool) -> Iterator[tuple[int, int, int]]:
    """Yields the sizes that are compared: a grid, then the full context in one run, then its last token alone.

    Args:
        config: The model's shape.
        chunked_batches: Whether several rows may take several tokens after a filled cache. onnxruntime's
            GroupQueryAttention cannot ("batch_size must be 1 when sequence_length > 1 and past context is given").

    Yields:
        The number of rows, of new tokens and of cached tokens.
    """
    for batch in (1, 3):
        for new in (1, 2, 17):
            for past in (0, 1, 30):
                allowed = chunked_batches or batch == 1 or new == 1 or past == 0
                if allowed and past + new < config.block_size:
                    yield batch, new, past
    yield 1, config.block_size, 0
    yield 1, 1, config.block_size - 1


def logit_difference(found: LogitArray, expected: LogitArray) -> float:
    """Returns the largest difference of a logit; NaN if one is NaN.

    If the largest expected logit exceeds `COMMON_LOGIT`, the difference is divided by how many times, because float32
    rounds in proportion.
    """
    scale = max(1.0, float(np.abs(expected).max()) / COMMON_LOGIT)
    return float(np.abs(found - expected).max()) / scale


@torch.inference_mode()
def rounding(model: GPT) -> float:
    """Returns how far PyTorch's float32 logits are from its float64 logits, over the full context of random ids."""
    config, random = model.config, torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size, (1, config.block_size), generator=random)
    return logit_difference(model(ids).numpy(), copy.deepcopy(model).double()(ids).numpy())


@torch.inference_mode()
def parity(model: GPT, forward: Forward, chunked_batches: bool) -> float:
    """Compares a variant's logits with PyTorch's over the grid, with a cache that grows as separate tensors.

    Args:
        model: The float model.
        forward: The variant.
        chunked_batches: See `parity_cases`.

    Returns:
        The largest `logit_difference`; NaN if a logit is NaN. If the `rounding` of the model exceeds `COMMON_ROUNDING`,
        the difference is divided by how many times.
    """
    config = model.config
    random = torch.Generator().manual_seed(0)
    worst = 0.0
    for batch, new, past in parity_cases(config, chunked_batches):
        ids = torch.randint(config.vocab_size, (batch, past + new), generator=random)
        cache, state = KVCache(config, batch), empty_past(config, batch)
        for start, end in ((0, past), (past, past + new)):
            if start == end:
                continue
            expected = model(ids[:, start:end], cache)
            logits, state = forward(ids[:, start:end], state)
            worst = float(np.maximum(worst, logit_difference(logits.numpy(), expected.numpy())))
    return worst / max(1.0, rounding(model) / COMMON_ROUNDING) if worst > COMMON_ROUNDING else worst


def same_greedy_tokens(config: GPTConfig, one: Continue, other: Continue) -> bool:
    """Returns whether two forms of a model continue a random prompt with the same ids, at most `GREEDY_TOKENS`."""
    random = torch.Generator().manual_seed(1)
    prompt = torch.randint(config.vocab_size, (min(8, config.block_size // 2),), generator=random).tolist()
    count = min(GREEDY_TOKENS, config.block_size - len(prompt))
    return one(prompt, count) == other(prompt, count)
