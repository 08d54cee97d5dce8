"""Writes a graph of ONNX's standard operators only, for runtimes without onnxruntime's contrib operators.

`Attention` of opset 23 takes past keys and values and returns longer ones, so the cache grows by copying. Its mask
allows rows that are padded on either side.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.onnx.ops import symbolic, symbolic_multi_out

from export.formats.graph import FlatGPT, keep_last, trace
from runtimes.engine.cache import CACHE_GROWS
from slm.model import GPT

PORTABLE_OPSET = 23


class PortableGPT(FlatGPT):
    """The GPT in standard operators, with the weights, inputs and outputs of FlatGPT."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        past: Sequence[Tensor],
        num_logits_to_keep: Tensor,
    ) -> tuple[Tensor, ...]:
        """Runs new ids after a past, as FlatGPT does. Zeros in attention_mask may be at any position."""
        width, new, total = self.config.n_embd, input_ids.shape[1], attention_mask.shape[1]
        table = self.wte.weight_t
        assert isinstance(table, Tensor)
        token = symbolic("Gather", (table, input_ids), {"axis": 1}, dtype=table.dtype, shape=(width, *input_ids.shape))
        x = token.permute(1, 2, 0) + self.wpe(position_ids)
        seen = torch.arange(total) <= (torch.arange(new) + (total - new)).unsqueeze(1)
        mask = seen & attention_mask.to(torch.bool).unsqueeze(1).unsqueeze(1)
        present: list[Tensor] = []
        for layer, block in enumerate(self.blocks):
            qkv = block.ln_1(x) @ block.c_attn.weight + block.c_attn.bias
            attended, key, value = self._standard_attention(qkv, mask, past[2 * layer], past[2 * layer + 1])
            present += [key, value]
            x = x + (attended @ block.attn_proj.weight + block.attn_proj.bias)
            hidden = F.gelu(block.ln_2(x) @ block.c_fc.weight + block.c_fc.bias, approximate="tanh")
            x = x + (hidden @ block.mlp_proj.weight + block.mlp_proj.bias)
        return (keep_last(self.ln_f(x), num_logits_to_keep) @ table, *present)

    def _standard_attention(self, qkv: Tensor, mask: Tensor, past_key: Tensor, past_value: Tensor) -> Sequence[Tensor]:
        heads, width = self.config.n_head, self.config.n_embd
        cache_shape = (qkv.shape[0], heads, mask.shape[-1], self.config.head_dim)
        return symbolic_multi_out(
            "Attention",
            (*torch.split(qkv, width, dim=2), mask, past_key, past_value),
            {"q_num_heads": heads, "kv_num_heads": heads},
            dtypes=(qkv.dtype,) * 3,
            shapes=((*qkv.shape[:2], width), cache_shape, cache_shape),
            version=PORTABLE_OPSET,
        )


def export_portable(model: GPT, path: Path) -> None:
    """Writes the float32 graph of a GPT in standard operators with its weights inside the file."""
    proto = trace(PortableGPT(model), model.config, PORTABLE_OPSET)
    proto.metadata_props.add(key=CACHE_GROWS, value="1")
    onnx.save_model(proto, path)
