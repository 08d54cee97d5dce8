"""Gives PyTorch models the interface of a session, so that every comparison runs the same loop."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from export.checks.torch_archive import check_torch_archive
from export.formats.suppress_output import suppress_output
from runtimes.bundle.variants import VARIANTS
from runtimes.engine.session import Session, float_threads
from slm.console.errors import SlmxError
from slm.model import GPT, KVCache
from slm.presets import GPTConfig
from slm.storage.read_errors import reason_of

if TYPE_CHECKING:
    from runtimes.engine.arrays import FloatArray, IdArray

# Takes input_ids int64 [batch, sequence] and the past [batch, heads, past, head_dim]; returns logits and the present.
Forward = Callable[[Tensor, list[Tensor]], tuple[Tensor, list[Tensor]]]


def empty_past(config: GPTConfig, batch: int) -> list[Tensor]:
    """Returns a past of no positions: keys and values [batch, heads, 0, head_dim] of each layer."""
    return [torch.zeros(batch, config.kv_heads, 0, config.head_dim) for _ in range(2 * config.n_layer)]


class FloatCache:
    """The float model with its own KV cache, in eval and inference mode. Not thread-safe.

    `forward` is the model or its compiled form.
    """

    def __init__(self, model: GPT, forward: Callable[..., Tensor]) -> None:
        self._config = model.config
        self._forward = forward
        self._cache = KVCache(model.config)

    @torch.inference_mode()
    def append(self, ids: IdArray, length: int, last_only: bool) -> FloatArray:
        """Runs ids [n] after `length` positions; returns logits [n, vocab], or [1, vocab] of the last alone."""
        self._cache.length = length
        rows: FloatArray = self._forward(torch.from_numpy(ids[None]), self._cache, last_only)[0].numpy()
        return rows

    @torch.inference_mode()
    def step(self, token: int, length: int) -> FloatArray:
        """Runs one id after `length` positions; returns its logits [vocab]."""
        self._cache.length = length
        row: FloatArray = self._forward(torch.tensor([[token]]), self._cache)[0, 0].numpy()
        return row

    def rewind(self, length: int) -> None:
        """Removes the positions from `length` on."""
        self._cache.length = length

    @torch.inference_mode()
    def copy(self, length: int) -> FloatCache:
        """Returns a cache with copies of the first `length` positions."""
        twin = copy.copy(self)
        twin._cache = KVCache(self._config)
        for ours, theirs in zip(
            (*twin._cache.keys, *twin._cache.values), (*self._cache.keys, *self._cache.values), strict=True
        ):
            ours[:, :, :length] = theirs[:, :, :length]
        return twin


class ForwardCache:
    """The cache of a module that takes the past and returns the present: TorchScript or torch.export's .pt2."""

    def __init__(self, forward: Forward, config: GPTConfig) -> None:
        self._forward = forward
        self._past = empty_past(config, 1)

    @torch.inference_mode()
    def append(self, ids: IdArray, length: int, last_only: bool) -> FloatArray:
        """Runs ids [n] after `length` positions; returns logits [n, vocab], or [1, vocab] of the last alone."""
        logits, self._past = self._forward(torch.from_numpy(ids[None]), self._past)
        rows: FloatArray = logits[0].numpy()
        return rows[-1:] if last_only else rows

    @torch.inference_mode()
    def step(self, token: int, length: int) -> FloatArray:
        """Runs one id after `length` positions; returns its logits [vocab]."""
        logits, self._past = self._forward(torch.tensor([[token]]), self._past)
        row: FloatArray = logits[0, 0].numpy()
        return row

    def rewind(self, length: int) -> None:
        """Removes the positions from `length` on."""
        self._past = [value[:, :, :length] for value in self._past]

    def copy(self, length: int) -> ForwardCache:
        """Returns a cache with the first `length` positions. The tensors are shared, because no run changes a past."""
        twin = copy.copy(self)
        twin.rewind(length)
        return twin


def load_forward(variant: str, file: Path | bytes, *, trusted: bool) -> Forward:
    """Loads the module of a TorchScript or .pt2 file.

    Args:
        variant: "torchscript" or "pt2".
        file: The file, or its content.
        trusted: Whether this process exported the file, or the user trusts its origin. PyTorch runs the program in it.

    Returns:
        The module as a function of ids and past. Not thread-safe.

    Raises:
        SlmxError: The file is not trusted, it holds something that slmx does not write, or PyTorch cannot load it.
    """
    where = variant if isinstance(file, bytes) else file
    if not trusted:
        raise SlmxError(f"{where}: PyTorch can run code from this file; add --trust if you trust who made the bundle")
    with io.BytesIO(file) if isinstance(file, bytes) else file.open("rb") as opened, suppress_output():
        check_torch_archive(variant, where, opened)
        try:
            if variant == "pt2":
                # It takes 75 MiB, which must not count as memory of the float model in a benchmark.
                from torch.export.pt2_archive._package import load_pt2

                # torch.export.load falls back to an older format, which it unpickles.
                module: Forward = load_pt2(opened).exported_programs["model"].module()
                return module
            scripted: Forward = torch.jit.load(opened if isinstance(file, bytes) else file)  # type: ignore[no-untyped-call]
            return scripted
        except Exception as error:  # PyTorch's readers raise many kinds of exceptions for a damaged file
            raise SlmxError(f"{where}: PyTorch cannot load this ({reason_of(error)}); export it again") from error


def open_session(
    variant: str, file: Path | bytes, config: GPTConfig, threads: int | None = None, *, trusted: bool = False
) -> Session:
    """Opens a session of the file of any variant.

    Args:
        variant: The variant's name.
        file: Its file, or the content of it.
        config: The model's shape.
        threads: Threads of onnxruntime; None chooses by the model's size. PyTorch's number of threads is a setting of
            the process, so set it before.
        trusted: Whether a TorchScript or .pt2 file may be loaded; see `load_forward`. ONNX files need no trust.

    Raises:
        SlmxError: The file is not trusted, or it cannot be opened.
    """
    if not VARIANTS[variant].is_torch:
        return Session.open(file, config, threads)
    cache = ForwardCache(load_forward(variant, file, trusted=trusted), config)
    return Session(cache, config, float_threads(config) if threads is None else threads)


def float_session(model: GPT, threads: int | None = None, compiled: bool = False) -> Session:
    """Opens a session of the float model, eager or compiled by torch.compile.

    `threads` is only recorded. PyTorch's number of threads is a setting of the process, so set it before.
    """
    forward = torch.compile(model.eval(), dynamic=True) if compiled else model.eval()
    return Session(
        FloatCache(model, forward), model.config, float_threads(model.config) if threads is None else threads
    )
