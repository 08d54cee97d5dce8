"""Writes a graph of ONNX's standard operators only, for runtimes without onnxruntime's contrib operators.

`Attention` of opset 23 takes past keys and values and returns longer ones, so the cache grows by copying. Its mask
allows rows that are padded on either side.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import torch

from export.formats.graph import ROTATION, Nodes, Operators, build_decoder
from runtimes.bundle.shape import cache_names
from runtimes.engine.cache import CACHE_GROWS
from slm.model import GPT, rotary_table
from slm.presets import GPTConfig

PORTABLE_OPSET = 23


class StandardOperators(Operators):
    """Standard operators. Zeros in attention_mask may be at any position."""

    opset = PORTABLE_OPSET

    def __init__(self, nodes: Nodes, config: GPTConfig) -> None:
        super().__init__(nodes, config)
        add, store = nodes.add, nodes.store
        self._past, self._present = cache_names(config.n_layer)
        zero, one = store("zero", torch.tensor(0).numpy()), store("one", torch.tensor(1).numpy())
        lengths = [
            add(f"{name}_length", "Squeeze", add(f"{name}_shape", "Shape", name, start=1, end=2))
            for name in ("input_ids", "attention_mask")
        ]
        first = add("first_new", "Sub", lengths[1], lengths[0])
        columns = add("columns", "Range", zero, lengths[1], one)
        rows = add("rows", "Unsqueeze", add("new", "Range", first, lengths[1], one), store("second_axis", [1]))
        causal = add("causal", "LessOrEqual", columns, rows)
        real = add("real", "Cast", "attention_mask", to=onnx.TensorProto.BOOL)
        by_row = add("real_by_row", "Unsqueeze", real, store("middle_axes", [1, 2]))
        self._masks = {0: add("mask", "And", causal, by_row)}
        for window in {*config.windows} - {0}:
            oldest = add(f"oldest_{window}", "Sub", rows, store(f"window_{window}", torch.tensor(window).numpy()))
            near = add(f"near_{window}", "Greater", columns, oldest)
            self._masks[window] = add(f"mask_{window}", "And", self._masks[0], near)
        self._rotation: list[str] = []
        if config.rope_theta:
            for name, table in zip(ROTATION, rotary_table(config, torch.arange(config.block_size)), strict=True):
                row = add(f"{name}.rows", "Gather", store(name, table.numpy()), "position_ids")
                self._rotation.append(add(f"{name}.now", "Unsqueeze", row, store("head_axis", [2])))

    def add_norm(self, name: str, x: str, skip: str, bias: str, norm: str) -> tuple[str, str]:
        """Adds and normalizes with separate operators."""
        skip = self.nodes.add(f"{name}.biased", "Add", skip, bias) if bias else skip
        total = self.nodes.add(f"{name}.sum", "Add", x, skip) if skip else x
        return self.norm(name, total, norm), total

    def attention(self, layer: int, qkv: str) -> str:
        """Runs Attention on separate queries, keys and values."""
        config, at = self.config, f"h.{layer}"
        heads = (config.n_head, config.kv_heads, config.kv_heads)
        sizes = self.nodes.store("qkv_sizes", [count * config.head_dim for count in heads])
        q, k, v = self.nodes.add_many([f"{at}.q", f"{at}.k", f"{at}.v"], "Split", qkv, sizes, axis=-1)
        if self._rotation:
            q, k = self._rotate(q, config.n_head), self._rotate(k, config.kv_heads)
        mask = self._masks[config.window(layer)]
        past, present = self._past[2 * layer : 2 * layer + 2], self._present[2 * layer : 2 * layer + 2]
        return self.nodes.add_many(
            [f"{at}.attn", *present],
            "Attention",
            *(q, k, v, mask, *past),
            q_num_heads=config.n_head,
            kv_num_heads=config.kv_heads,
        )[0]

    def _rotate(self, x: str, heads: int) -> str:
        """Rotates the channel pairs (i, i + head_dim / 2) of x [batch, sequence, heads * head_dim]."""
        add, store, (cos, sin) = self.nodes.add, self.nodes.store, self._rotation
        by_head = add(f"{x}.by_head", "Reshape", x, store(f"by_{heads}", [0, 0, heads, self.config.head_dim]))
        first, second = self.nodes.add_many([f"{x}.first", f"{x}.second"], "Split", by_head, axis=-1, num_outputs=2)
        left = add(f"{x}.left", "Sub", add(f"{x}.1_cos", "Mul", first, cos), add(f"{x}.2_sin", "Mul", second, sin))
        right = add(f"{x}.right", "Add", add(f"{x}.2_cos", "Mul", second, cos), add(f"{x}.1_sin", "Mul", first, sin))
        turned = add(f"{x}.turned", "Concat", left, right, axis=-1)
        return add(f"{x}.rotated", "Reshape", turned, store("joined", [0, 0, -1]))


def export_portable(model: GPT, path: Path) -> None:
    """Writes the float32 graph of a GPT in standard operators with its weights inside the file."""
    proto = build_decoder(model, StandardOperators)
    proto.metadata_props.add(key=CACHE_GROWS, value="1")
    onnx.save_model(onnx.shape_inference.infer_shapes(proto), path)
