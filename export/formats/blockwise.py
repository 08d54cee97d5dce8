"""Quantizes a graph in blocks of weights: q8 in 8 bits, int4 in 4 bits.

`slm.blocks` has the rule of the blocks and their scales, and `export.formats.gptq` rounds the matrices of int4.
onnxruntime's MatMulNBits multiplies by the blocks. It quantizes each row of activations by itself, in the same blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from export.formats.fused import CONTRIB
from export.formats.gptq import Hessians, round_gptq
from export.formats.graph import SCALE, TOKEN_TABLE, UNTIED_HEAD, UNTIED_TABLE, replace_nodes
from slm.blocks import BlockRecipe, Blocks, block_size

INT8_ACTIVATIONS = 4  # MatMulNBits's name for products of 8-bit activations, its accuracy_level
# The nodes that gather the rows of the token table. The last one writes the embedded tokens.
EMBEDDING = ("token_columns", "tokens")


@dataclass(frozen=True)
class StoredBlocks:
    """A matrix in blocks, as MatMulNBits reads it.

    Attributes:
        name: Its name in the graph.
        blocks: Its numbers and scales.
    """

    name: str
    blocks: Blocks

    @property
    def names(self) -> tuple[str, str]:
        """The names of the stored numbers and scales."""
        return f"{self.name}_Q{self.blocks.bits}", self.name + SCALE

    def tensors(self) -> list[onnx.TensorProto]:
        """Returns the stored tensors. A byte holds one number, or two of 4 bits with the first in its low half."""
        blocks = self.blocks
        values = blocks.values if blocks.bits == 8 else blocks.values[..., 0::2] | blocks.values[..., 1::2] << 4
        arrays = (values, blocks.scales)
        return [numpy_helper.from_array(array, name) for array, name in zip(arrays, self.names, strict=True)]

    def multiply(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """Returns the node that takes the place of a MatMul by this matrix."""
        channels, blocks, block = self.blocks.values.shape
        return helper.make_node(
            "MatMulNBits",
            [node.input[0], *self.names],
            node.output,
            node.name,
            domain=CONTRIB,
            K=blocks * block,
            N=channels,
            bits=self.blocks.bits,
            block_size=block,
            accuracy_level=INT8_ACTIVATIONS,
        )


def quantize_blockwise(source: Path, target: Path, recipe: BlockRecipe, hessians: Hessians | None) -> None:
    """Writes the form of a float graph whose matrices and token table are stored in blocks of weights.

    A tied head and the embedding read the same stored numbers. The embedding gathers rows of them with standard
    operators, because onnxruntime 1.22 has no GatherBlockQuantized for 8 bits.

    Args:
        source: The float32 graph.
        target: Where the quantized graph is written.
        recipe: How to quantize.
        hessians: Those of the matrices to round by GPTQ; None for no matrix. Each weight of the others is rounded to
            the nearest number.
    """
    model = onnx.load(source)
    graph = model.graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    tied = UNTIED_HEAD not in weights
    table, head = (TOKEN_TABLE, TOKEN_TABLE) if tied else (UNTIED_TABLE, UNTIED_HEAD)
    stored: dict[str, StoredBlocks] = {}
    for node in graph.node:
        name = node.input[1] if node.op_type == "MatMul" else ""
        if name in weights:
            if hessians is not None and name in hessians:
                block = block_size(len(weights[name]), recipe.largest_block)
                rounded = round_gptq(weights[name].T, hessians[name], recipe.bits, block)
            else:
                rounded = recipe.quantize(weights[name].T, is_table=name == head)
            stored[name] = StoredBlocks(name, rounded)
            node.CopyFrom(stored[name].multiply(node))
    if not tied:
        stored[table] = StoredBlocks(table, recipe.quantize(weights[table], is_table=True))
    _gather_rows(graph, stored[table])
    for name, blocks in stored.items():
        graph.initializer.remove(next(tensor for tensor in graph.initializer if tensor.name == name))
        graph.initializer.extend(blocks.tensors())
    onnx.save_model(model, target)


def _gather_rows(graph: onnx.GraphProto, table: StoredBlocks) -> None:
    """Makes the embedding gather rows of the table's 8-bit numbers and multiply each block by its scale."""
    old = [node for node in graph.node if node.name in EMBEDDING]
    ids = old[0].input[1]
    values, scales = table.names
    nodes = [
        helper.make_node("Gather", [values, ids], ["wte.rows"], "wte.rows"),
        helper.make_node("DequantizeLinear", ["wte.rows", "wte.one", "wte.zero"], ["wte.centred"], "wte.centred"),
        # onnxruntime computes this node once, when it opens the file.
        helper.make_node("Unsqueeze", [scales, "wte.last_axis"], ["wte.column"], "wte.column"),
        helper.make_node("Gather", ["wte.column", ids], ["wte.scales"], "wte.scales"),
        helper.make_node("Mul", ["wte.centred", "wte.scales"], ["wte.blocks"], "wte.blocks"),
        helper.make_node("Reshape", ["wte.blocks", "wte.joined"], [EMBEDDING[-1]], EMBEDDING[-1]),
    ]
    replace_nodes(graph, old, nodes)
    constants: dict[str, npt.NDArray[np.generic]] = {
        "wte.one": np.array(1, np.float32),
        "wte.zero": np.array(128, np.uint8),
        "wte.last_axis": np.array([-1]),
        "wte.joined": np.array([0, 0, -1]),
    }
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
