"""Quantizes a graph to dynamic int8, which quantizes activations at run time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from export.formats.graph import (
    SCALE,
    STORED,
    TOKEN_TABLE,
    UNTIED_HEAD,
    UNTIED_TABLE,
    ZERO_POINT,
    replace_nodes,
)
from export.formats.recipes import Int8Recipe
from export.formats.suppress_output import suppress_output
from slm.console.errors import SlmxError


def quantize_int8(source: Path, target: Path, recipe: Int8Recipe, only: set[str] | None = None) -> None:
    """Writes the int8 form of a float graph.

    onnxruntime's quantizer, which optimum's ORTQuantizer also uses, replaces each MatMul by DynamicQuantizeLinear and
    MatMulInteger. It cannot share a table that both Gather and MatMul read: it stores two copies, or uses one unsigned
    scale for both. Therefore this function changes the embedding to read the head's quantized table. An embedding with
    a table of its own gets an int8 scale for each row.

    Args:
        source: The float32 graph.
        target: Where the int8 graph is written.
        recipe: How to quantize.
        only: Names of the matrices to quantize; None for all. The recipe decides about the token table in any case.

    Raises:
        SlmxError: The quantizer's working file is damaged, probably because the disk is full.
    """
    graph = onnx.load(source).graph
    stored = {tensor.name for tensor in graph.initializer}
    chosen = stored if only is None else set(only)
    head = UNTIED_HEAD if UNTIED_HEAD in stored else TOKEN_TABLE
    if not recipe.table:
        chosen.discard(head)
    kept = [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] not in chosen]
    try:
        with suppress_output():
            quantize_dynamic(
                source,
                target,
                op_types_to_quantize=["MatMul"],
                nodes_to_exclude=kept,
                per_channel=recipe.per_channel,
                reduce_range=recipe.reduce_range,
                weight_type=QuantType.QInt8 if recipe.signed else QuantType.QUInt8,
                extra_options={"MatMulConstBOnly": True, "WeightSymmetric": recipe.per_channel},
            )
    # onnx does not say that it could not write the file. What is read back is then half a model, or an empty one.
    except (DecodeError, ValueError) as error:
        raise SlmxError(
            "onnxruntime's quantizer cannot read back the working file that it wrote: the disk is probably full; "
            "make room and export again"
        ) from error
    if head in chosen:
        model = onnx.load(target)
        if head == TOKEN_TABLE:
            _embed_from_quantized_table(model.graph)
        else:
            _quantize_embedding(model.graph)
        onnx.save_model(model, target)


def _embed_from_quantized_table(graph: onnx.GraphProto) -> None:
    """Makes the embedding gather columns of the head's int8 table, so that the file holds only one table."""
    stored, scales, zero_points = (TOKEN_TABLE + ending for ending in (STORED, SCALE, ZERO_POINT))
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    scale, zero_point = (numpy_helper.to_array(tensors[name]) for name in (scales, zero_points))
    gather = next(node for node in graph.node if node.input[0] == TOKEN_TABLE)
    ids, output = gather.input[1], gather.output[0]
    columns = helper.make_node("Gather", [stored, ids], ["wte.columns"], "wte.columns", axis=1)
    if scale.ndim == 0:
        inputs = ["wte.columns", scales, zero_points]
        nodes = [columns, helper.make_node("DequantizeLinear", inputs, [output], "wte.dequantize")]
    else:
        nodes = [columns, helper.make_node("Cast", ["wte.columns"], ["wte.float"], "wte.cast", to=TensorProto.FLOAT)]
        centred = "wte.float"
        if np.any(zero_point):
            nodes += [
                helper.make_node("Gather", [zero_points, ids], ["wte.zero_point"], "wte.zero_points"),
                helper.make_node("Cast", ["wte.zero_point"], ["wte.zero"], "wte.zero_cast", to=TensorProto.FLOAT),
                helper.make_node("Sub", ["wte.float", "wte.zero"], ["wte.centred"], "wte.centre"),
            ]
            centred = "wte.centred"
        nodes += [
            helper.make_node("Gather", [scales, ids], ["wte.scale"], "wte.scales"),
            helper.make_node("Mul", [centred, "wte.scale"], [output], "wte.dequantize"),
        ]
    replace_nodes(graph, [gather], nodes)
    graph.initializer.remove(tensors[TOKEN_TABLE])


def _quantize_embedding(graph: onnx.GraphProto) -> None:
    """Stores the table of an untied embedding as int8, with a scale for each row."""
    tensor = next(tensor for tensor in graph.initializer if tensor.name == UNTIED_TABLE)
    table: npt.NDArray[np.float32] = numpy_helper.to_array(tensor)
    largest = np.abs(table).max(axis=1, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    stored, scales = UNTIED_TABLE + STORED, UNTIED_TABLE + SCALE
    gather = next(node for node in graph.node if node.input[0] == UNTIED_TABLE)
    ids, output = gather.input[1], gather.output[0]
    nodes = [
        helper.make_node("Gather", [stored, ids], ["wte.rows"], "wte.rows"),
        helper.make_node("Cast", ["wte.rows"], ["wte.float"], "wte.cast", to=TensorProto.FLOAT),
        helper.make_node("Gather", [scales, ids], ["wte.scale"], "wte.scales"),
        helper.make_node("Mul", ["wte.float", "wte.scale"], [output], "wte.dequantize"),
    ]
    replace_nodes(graph, [gather], nodes)
    graph.initializer.remove(tensor)
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.round(table / scale).astype(np.int8), stored),
            numpy_helper.from_array(scale, scales),
        ]
    )
