"""PyTorch models behind the session's interface, so that every comparison drives one loop."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from export.formats.quiet import quiet
from runtimes.bundle.store import TORCH_VARIANTS
from runtimes.engine.session import Session, default_threads
from slm.errors import SlmxError
from slm.model import GPT, KVCache
from slm.presets import GPTConfig

if TYPE_CHECKING:
    from runtimes.engine.cache import FloatArray, IdArray

# input_ids int64 [batch, sequence] and the past [batch, heads, past, head_dim]; logits and the present come back.
Forward = Callable[[Tensor, list[Tensor]], tuple[Tensor, list[Tensor]]]


def empty_past(config: GPTConfig, batch: int) -> list[Tensor]:
    """A past of no positions."""
    return [torch.zeros(batch, config.n_head, 0, config.head_dim) for _ in range(2 * config.n_layer)]


class FloatCache:
    """The float model with its own KV cache, in eval and inference mode; `forward` may be its compiled form."""

    def __init__(self, model: GPT, forward: Callable[..., Tensor] | None = None) -> None:
        self._config = model.config
        self._forward = model.eval() if forward is None else forward
        self._cache = KVCache(model.config)

    @torch.inference_mode()
    def append(self, ids: IdArray, length: int, last_only: bool) -> FloatArray:
        """Run ids [n] behind `length` positions; logits [n, vocab], or [1, vocab] of the last alone."""
        self._cache.length = length
        rows: FloatArray = self._forward(torch.from_numpy(ids[None]), self._cache, last_only)[0].numpy()
        return rows

    @torch.inference_mode()
    def step(self, token: int, length: int) -> FloatArray:
        """Run one id; its logits [vocab]."""
        self._cache.length = length
        row: FloatArray = self._forward(torch.tensor([[token]]), self._cache)[0, 0].numpy()
        return row

    def rewind(self, length: int) -> None:
        """Let positions from `length` on be no part of the sequence."""
        self._cache.length = length

    @torch.inference_mode()
    def copy(self, length: int) -> FloatCache:
        """A separate cache with the first `length` positions."""
        twin = copy.copy(self)
        twin._cache = KVCache(self._config)
        for ours, theirs in zip(
            (*twin._cache.keys, *twin._cache.values), (*self._cache.keys, *self._cache.values), strict=True
        ):
            ours[:, :, :length] = theirs[:, :, :length]
        return twin


class ForwardCache:
    """A module that takes the past and returns the present: TorchScript, torch.export's .pt2."""

    def __init__(self, forward: Forward, config: GPTConfig) -> None:
        self._forward = forward
        self._past = empty_past(config, 1)

    @torch.inference_mode()
    def append(self, ids: IdArray, length: int, last_only: bool) -> FloatArray:
        """Run ids [n] behind `length` positions; logits [n, vocab], or [1, vocab] of the last alone."""
        logits, self._past = self._forward(torch.from_numpy(ids[None]), self._past)
        rows: FloatArray = logits[0].numpy()
        return rows[-1:] if last_only else rows

    @torch.inference_mode()
    def step(self, token: int, length: int) -> FloatArray:
        """Run one id; its logits [vocab]."""
        logits, self._past = self._forward(torch.tensor([[token]]), self._past)
        row: FloatArray = logits[0, 0].numpy()
        return row

    def rewind(self, length: int) -> None:
        """Cut the cache to `length` positions."""
        self._past = [value[:, :, :length] for value in self._past]

    def copy(self, length: int) -> ForwardCache:
        """A separate cache with the first `length` positions; no run changes a past, so they are shared."""
        twin = copy.copy(self)
        twin.rewind(length)
        return twin


def load_forward(variant: str, path: Path) -> Forward:
    """The module in a TorchScript or .pt2 file; SlmxError for one that PyTorch cannot load."""
    try:
        if variant == "pt2":
            module: Forward = torch.export.load(path).module()
            return module
        with quiet():
            scripted: Forward = torch.jit.load(path)  # type: ignore[no-untyped-call]
        return scripted
    except (RuntimeError, ValueError) as error:
        raise SlmxError(f"{path}: PyTorch cannot load this ({str(error).splitlines()[0]}); export it again") from error


def open_session(variant: str, path: Path, config: GPTConfig, threads: int | None = None) -> Session:
    """A session of any variant's file, whatever runs it. PyTorch's threads are the process's: set them before."""
    if variant not in TORCH_VARIANTS:
        return Session.open(path, config, threads)
    cache = ForwardCache(load_forward(variant, path), config)
    return Session(cache, config, default_threads(config) if threads is None else threads)


def float_session(model: GPT, threads: int | None = None, compiled: bool = False) -> Session:
    """A session of the float model, eager or by torch.compile. PyTorch's threads are the process's: set them before."""
    forward = torch.compile(model.eval(), dynamic=True) if compiled else None
    return Session(
        FloatCache(model, forward), model.config, default_threads(model.config) if threads is None else threads
    )
