"""Writes the float32 graph in onnxruntime's contrib operators, which is the fast form.

GroupQueryAttention appends to the KV cache, in place if past and present share a buffer. It also rotates positions and
limits the attention to a window. SkipLayerNormalization adds bias and residual, and FastGelu adds its bias. The
operators are defined in docs/ContribOperators.md of onnxruntime.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import torch

from export.formats.graph import ROTATION, Nodes, Operators, build_decoder
from runtimes.bundle.shape import cache_names
from slm.model import GPT, rotary_table
from slm.presets import GPTConfig

OPSET = 20
CONTRIB = "com.microsoft"


class FusedOperators(Operators):
    """The contrib operators. Rows of a batch may differ in length if they are padded on the right."""

    opset = OPSET

    def __init__(self, nodes: Nodes, config: GPTConfig) -> None:
        super().__init__(nodes, config)
        add, store = nodes.add, nodes.store
        self._past, self._present = cache_names(config.n_layer)
        ones = add("length", "ReduceSum", "attention_mask", store("mask_axis", [1]), keepdims=0)
        last = add("last_position", "Sub", ones, store("one", [1]))
        self._last = add("seqlens_k", "Cast", last, to=onnx.TensorProto.INT32)
        total = add("total_length", "Shape", "attention_mask", start=1, end=2)
        self._total = add("total_sequence_length_int32", "Cast", total, to=onnx.TensorProto.INT32)
        self._rotation: list[str] = []
        if config.rope_theta:
            tables = rotary_table(config, torch.arange(config.block_size))
            self._rotation = [store(name, t.numpy()) for name, t in zip(ROTATION, tables, strict=True)]

    def add_norm(self, name: str, x: str, skip: str, bias: str, norm: str) -> tuple[str, str]:
        """Adds and normalizes with one operator."""
        if not skip:
            return self.norm(name, x, norm), x
        is_layer = self.config.norm == "layernorm"
        inputs = [x, skip, f"{norm}.weight"]
        if is_layer:
            inputs.append(f"{norm}.bias" if self.config.bias else "")
        if bias:
            inputs.append(bias)
        while not inputs[-1]:
            inputs.pop()
        # Outputs 1 and 2 (mean and inverse deviation) exist only in training.
        outputs = self.nodes.add_many(
            [name, "", "", f"{name}.sum"],
            "SkipLayerNormalization" if is_layer else "SkipSimplifiedLayerNormalization",
            *inputs,
            domain=CONTRIB,
            epsilon=self.config.norm_eps,
        )
        return outputs[0], outputs[3]

    def attention(self, layer: int, qkv: str) -> str:
        """Runs GroupQueryAttention on packed queries, keys and values."""
        config = self.config
        past, present = self._past[2 * layer : 2 * layer + 2], self._present[2 * layer : 2 * layer + 2]
        inputs = [qkv, "", "", *past, self._last, self._total, *self._rotation]
        attributes: dict[str, int | float] = {
            "num_heads": config.n_head,
            "kv_num_heads": config.kv_heads,
            "scale": config.head_dim**-0.5,
        }
        if self._rotation:
            attributes["do_rotary"] = 1
        if window := config.window(layer):
            attributes["local_window_size"] = window
        names = [f"h.{layer}.attn", *present]
        return self.nodes.add_many(names, "GroupQueryAttention", *inputs, domain=CONTRIB, **attributes)[0]

    def activation(self, name: str, x: str, bias: str) -> str:
        """Applies the activation function, together with the bias where an operator for both exists."""
        with_bias = [x, bias] if bias else [x]
        match self.config.activation:
            case "gelu_tanh":
                return self.nodes.add(name, "FastGelu", *with_bias, domain=CONTRIB)
            case "gelu" if bias:
                return self.nodes.add(name, "BiasGelu", *with_bias, domain=CONTRIB)
            case "silu" if not bias:
                return self.nodes.add(name, "QuickGelu", x, domain=CONTRIB, alpha=1.0)
        return super().activation(name, x, bias)


def export_onnx(model: GPT, path: Path) -> None:
    """Writes the float32 graph of a GPT with its weights inside the file."""
    onnx.save_model(build_decoder(model, FusedOperators), path)
