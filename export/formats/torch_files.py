"""Writes the model as files that PyTorch itself loads: TorchScript, and its successor, torch.export's .pt2.

Both hold one module for prefill and decode that loads without slmx. It takes input_ids int64 [batch, sequence] and a
list of past keys and values [batch, kv_heads, past, head_dim], the key of a layer before its value. The past may be
empty. It returns logits [batch, sequence, vocab] and the list of present keys and values.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from export.formats.suppress_output import suppress_output
from slm.model import GPT, KVCache
from slm.presets import GPTConfig

MAX_BATCH = 1024
# The records of torch.export about the source that each node was traced from.
TRACE_RECORDS = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node", "custom")


class GrowingCache(KVCache):
    """A KV cache that returns longer keys and values and changes no tensor, so that PyTorch can record its use.

    Args:
        past: Keys and values [batch, kv_heads, past, head_dim], the key of a layer before its value.

    Attributes:
        present: The same with the new positions, after the model has run.
    """

    traced = True

    def __init__(self, past: list[Tensor]) -> None:
        self.present = list(past)
        self.length = past[0].size(2)

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the keys and values of all positions so far."""
        for at, new in ((2 * layer, key), (2 * layer + 1, value)):
            self.present[at] = torch.cat((self.present[at], new), dim=2)
        return self.present[2 * layer], self.present[2 * layer + 1]


class CachedGPT(nn.Module):
    """The GPT with its KV cache as argument and result."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, past: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Runs new ids after a past; returns logits and the present cache. The docstring of the file has the shapes."""
        cache = GrowingCache(past)
        logits: Tensor = self.model(input_ids, cache)
        return logits, cache.present


def sample_inputs(config: GPTConfig) -> tuple[Tensor, list[Tensor]]:
    """Returns ids and a past, to record a model with. The recorded program takes any other lengths."""
    cache = [torch.zeros(2, config.kv_heads, 4, config.head_dim) for _ in range(2 * config.n_layer)]
    return torch.ones(2, 3, dtype=torch.int64), cache


def export_torchscript(model: GPT, path: Path) -> None:
    """Writes a frozen TorchScript module for `torch.jit.load`.

    PyTorch adds debugging records that hold its own source text and the paths of this machine. They are left out.
    """
    buffer = io.BytesIO()
    with suppress_output():
        # Without strict=False, a list is no result of a traced module.
        traced = torch.jit.trace(CachedGPT(model).eval(), sample_inputs(model.config), strict=False)  # type: ignore[no-untyped-call]
        torch.jit.save(torch.jit.freeze(traced), buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w") as target:
        for member in source.infolist():
            if not member.filename.endswith(".debug_pkl"):
                content = source.read(member)
                member.extra = b""
                target.writestr(member, content)


def export_pt2(model: GPT, path: Path) -> None:
    """Writes an exported program for `torch.export.load(path).module()`.

    The sample inputs are left out, because PyTorch stores them pickled. The stack traces are left out, because they
    hold the paths of this machine. Only tensors and JSON remain.
    """
    config = model.config
    batch = torch.export.Dim("batch_size", max=MAX_BATCH)
    sequence = torch.export.Dim("sequence_length", max=config.block_size)
    past = torch.export.Dim("past_sequence_length", min=0, max=config.block_size)
    shapes = {"input_ids": {0: batch, 1: sequence}, "past": [{0: batch, 2: past} for _ in range(2 * config.n_layer)]}
    buffer = io.BytesIO()
    with suppress_output():
        program = torch.export.export(CachedGPT(model).eval(), sample_inputs(config), dynamic_shapes=shapes)
        program.example_inputs = None
        for node in program.graph.nodes:
            node.meta = {key: value for key, value in node.meta.items() if key not in TRACE_RECORDS}
        torch.export.save(program, buffer)
    path.write_bytes(buffer.getbuffer())
