"""Writes the model as files that PyTorch itself loads: TorchScript, and its successor, torch.export's .pt2.

Both hold one module for prefill and decode that loads without slmx. It takes input_ids int64 [batch, sequence] and a
list of past keys and values [batch, heads, past, head_dim], the key of a layer before its value. The past may be empty.
It returns logits [batch, sequence, vocab] and the list of present keys and values.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.formats.suppress_output import suppress_output
from slm.model import GPT, Block

MAX_BATCH = 1024
# The records of torch.export about the source that each node was traced from.
TRACE_RECORDS = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node", "custom")


class CachedBlock(nn.Module):
    """A block that takes its past keys and values and returns the present ones."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.n_head = block.attn.n_head
        self.ln_1 = block.ln_1
        self.c_attn = block.attn.c_attn
        self.attn_proj = block.attn.c_proj
        self.ln_2 = block.ln_2
        self.c_fc = block.mlp.c_fc
        self.mlp_proj = block.mlp.c_proj

    def forward(self, x: Tensor, mask: Tensor, past_key: Tensor, past_value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Runs x float [batch, sequence, n_embd] with mask bool [sequence, total]; returns x, present key and value."""
        batch, sequence, width = x.size()
        qkv = self.c_attn(self.ln_1(x)).view(batch, sequence, 3, self.n_head, width // self.n_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        k, v = torch.cat((past_key, k), 2), torch.cat((past_value, v), 2)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.attn_proj(y.transpose(1, 2).reshape(batch, sequence, width))
        x = x + self.mlp_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))
        return x, k, v


class CachedGPT(nn.Module):
    """The GPT with its KV cache as argument and result, in Python that TorchScript and torch.export can read."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.wte = model.wte
        self.wpe = model.wpe
        self.h = nn.ModuleList(CachedBlock(block) for block in model.h if isinstance(block, Block))
        self.ln_f = model.ln_f

    def forward(self, input_ids: Tensor, past: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Runs new ids after a past; returns logits and the present cache. The docstring of the file has the shapes."""
        sequence, length = input_ids.size(1), past[0].size(2)
        position_ids = torch.arange(length, length + sequence, device=input_ids.device)
        mask = torch.arange(length + sequence, device=input_ids.device) <= position_ids.unsqueeze(1)
        x = self.wte(input_ids) + self.wpe(position_ids)
        present: list[Tensor] = []
        for layer, block in enumerate(self.h):
            x, key, value = block(x, mask, past[2 * layer], past[2 * layer + 1])
            present.append(key)
            present.append(value)
        return F.linear(self.ln_f(x), self.wte.weight), present


def export_torchscript(model: GPT, path: Path) -> None:
    """Writes a frozen TorchScript module for `torch.jit.load`.

    PyTorch adds debugging records that hold its own source text and the paths of this machine. They are left out.
    """
    buffer = io.BytesIO()
    with suppress_output():
        torch.jit.save(torch.jit.freeze(torch.jit.script(CachedGPT(model).eval())), buffer)
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
    cache = [torch.zeros(2, config.n_head, 4, config.head_dim) for _ in range(2 * config.n_layer)]
    shapes = {"input_ids": {0: batch, 1: sequence}, "past": [{0: batch, 2: past} for _ in cache]}
    buffer = io.BytesIO()
    with suppress_output():
        ids = torch.ones(2, 3, dtype=torch.int64)
        program = torch.export.export(CachedGPT(model).eval(), (ids, cache), dynamic_shapes=shapes)
        program.example_inputs = None
        for node in program.graph.nodes:
            node.meta = {key: value for key, value in node.meta.items() if key not in TRACE_RECORDS}
        torch.export.save(program, buffer)
    path.write_bytes(buffer.getbuffer())
