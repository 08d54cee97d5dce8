"""int8: weights stored in 8 bits, activations quantized as they come; int4: blocks of weights in 4 bits."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from export.formats.graph import TOKEN_TABLE
from export.formats.quiet import quiet
from slm.errors import SlmxError
from slm.presets import GPTConfig


@dataclass(frozen=True)
class Int8Recipe:
    """How weights become int8: signed or not, a scale per output channel or one, 7 or 8 bits, table or not."""

    signed: bool
    per_channel: bool
    reduce_range: bool
    table: bool

    @property
    def name(self) -> str:
        """Such as `s8-channel-7bit` or `u8-tensor-float-table`."""
        parts = ["s8" if self.signed else "u8", "channel" if self.per_channel else "tensor"]
        return "-".join(parts + ["7bit"] * self.reduce_range + ["float-table"] * (not self.table))


_FLAGS = itertools.product((True, False), (False, True), (False, True), (True, False))
RECIPES: dict[str, Int8Recipe] = {recipe.name: recipe for recipe in (Int8Recipe(*flags) for flags in _FLAGS)}
# The choice is measured: docs/export.md has the tables.
DEFAULT_RECIPE = "u8-tensor"


def get_recipe(name: str) -> Int8Recipe:
    """The recipe of that name; SlmxError listing those that exist otherwise."""
    if name not in RECIPES:
        raise SlmxError(f"unknown int8 recipe {name!r}: choose one of {', '.join(RECIPES)}")
    return RECIPES[name]


INT4_BLOCK = 32


def weight_names(model: Path) -> list[str]:
    """Names of the matrices that MatMul multiplies by: what int8 can quantize."""
    graph = onnx.load(model).graph
    stored = {tensor.name for tensor in graph.initializer}
    return [node.input[1] for node in graph.node if node.op_type == "MatMul" and node.input[1] in stored]


def quantize_int8(source: Path, target: Path, recipe: Int8Recipe, only: set[str] | None = None) -> None:
    """Write the int8 form of a float graph; `only` names the matrices to quantize (default: all).

    onnxruntime's quantizer, the one that optimum's ORTQuantizer drives, turns each MatMul into
    DynamicQuantizeLinear and MatMulInteger. It cannot share the table: for a table read by Gather and
    MatMul it keeps two copies, or falls back to one unsigned scale for both. The embedding is rewired here.
    """
    graph = onnx.load(source).graph
    chosen = set(weight_names(source)) if only is None else set(only)
    if not recipe.table:
        chosen.discard(TOKEN_TABLE)
    kept = [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] not in chosen]
    try:
        with quiet():
            quantize_dynamic(
                source,
                target,
                op_types_to_quantize=["MatMul"],
                nodes_to_exclude=kept,
                per_channel=recipe.per_channel,
                reduce_range=recipe.reduce_range,
                weight_type=QuantType.QInt8 if recipe.signed else QuantType.QUInt8,
                extra_options={"MatMulConstBOnly": True},
            )
    except DecodeError as error:
        raise SlmxError(
            "onnxruntime's quantizer cannot read back the working file that it wrote: the disk is probably full; "
            "make room and export again"
        ) from error
    if TOKEN_TABLE in chosen:
        model = onnx.load(target)
        _embed_from_quantized_table(model.graph)
        onnx.save_model(model, target)


def check_int4(config: GPTConfig) -> None:
    """SlmxError if blocks of 32 do not divide the width, on which all matrices are built."""
    if config.n_embd % INT4_BLOCK:
        raise SlmxError(f"int4 needs a width that its blocks of {INT4_BLOCK} divide, not {config.n_embd}; use --int8")


def quantize_int4(source: Path, target: Path, table: Int8Recipe) -> None:
    """Write the int4 form of a float graph: blocks of 32 weights share a scale, products are made in int8.

    The vocabulary table, read by head and embedding, becomes int8 by the recipe `table`: 4 bits hurt it most.
    """
    quantize_int8(source, target, table, only={TOKEN_TABLE})
    with quiet():
        quantizer = MatMulNBitsQuantizer(onnx.load(target), block_size=INT4_BLOCK, is_symmetric=True, accuracy_level=4)
        quantizer.process()
    onnx.save_model(quantizer.model.model, target)


def _embed_from_quantized_table(graph: onnx.GraphProto) -> None:
    """Let the embedding gather columns of the head's int8 table, so that the file holds the table once."""
    names = {part: f"{TOKEN_TABLE}_{part}" for part in ("quantized", "scale", "zero_point")}
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    scale, zero_point = (numpy_helper.to_array(tensors[names[part]]) for part in ("scale", "zero_point"))
    index, gather = next((i, node) for i, node in enumerate(graph.node) if node.input[0] == TOKEN_TABLE)
    ids, output = gather.input[1], gather.output[0]
    columns = helper.make_node("Gather", [names["quantized"], ids], ["wte.columns"], "wte.columns", axis=1)
    if scale.ndim == 0:
        inputs = ["wte.columns", names["scale"], names["zero_point"]]
        nodes = [columns, helper.make_node("DequantizeLinear", inputs, [output], "wte.dequantize")]
    else:
        nodes = [columns, helper.make_node("Cast", ["wte.columns"], ["wte.float"], "wte.cast", to=TensorProto.FLOAT)]
        centred = "wte.float"
        if np.any(zero_point):
            nodes += [
                helper.make_node("Gather", [names["zero_point"], ids], ["wte.zero_point"], "wte.zero_points"),
                helper.make_node("Cast", ["wte.zero_point"], ["wte.zero"], "wte.zero_cast", to=TensorProto.FLOAT),
                helper.make_node("Sub", ["wte.float", "wte.zero"], ["wte.centred"], "wte.centre"),
            ]
            centred = "wte.centred"
        nodes += [
            helper.make_node("Gather", [names["scale"], ids], ["wte.scale"], "wte.scales"),
            helper.make_node("Mul", [centred, "wte.scale"], [output], "wte.dequantize"),
        ]
    graph.node.remove(gather)
    for offset, node in enumerate(nodes):
        graph.node.insert(index + offset, node)
    graph.initializer.remove(tensors[TOKEN_TABLE])
