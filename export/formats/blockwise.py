"""Quantizes a graph in blocks of weights: q8 in 8 bits, int4 in 4 bits.

The weights of each output channel are cut into blocks, and each block has its own scale. onnxruntime's MatMulNBits
multiplies by them. It quantizes each row of activations by itself, in the same blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from export.formats.fused import CONTRIB
from export.formats.graph import TOKEN_TABLE, UNTIED_HEAD, UNTIED_TABLE
from slm.errors import SlmxError
from slm.presets import GPTConfig

SMALLEST_BLOCK = 16  # of MatMulNBits
INT8_ACTIVATIONS = 4  # MatMulNBits's name for products of 8-bit activations, its accuracy_level
# The scales that are tried, in percent of the one that makes the weight of the largest magnitude exact. Its number is
# then -2^(bits - 1), because there is one negative number more than there are positive ones.
SCALES = range(80, 116)
HEAD_BITS = 8  # of the head and the token table; docs/export.md says what 4 bits would cost
# The nodes that gather the rows of the token table. The last one writes the embedded tokens.
EMBEDDING = ("token_columns", "tokens")


@dataclass(frozen=True)
class BlockRecipe:
    """How weights are stored in blocks.

    Attributes:
        bits: Bits of a weight of the matrices of the layers, 8 or 4.
        largest_block: The largest number of weights that share a scale. A matrix has the largest power of two up to
            it that divides its rows.
    """

    bits: int
    largest_block: int

    @property
    def settings(self) -> dict[str, bool | int | str]:
        """The recipe for a manifest."""
        return {"bits": self.bits, "largest_block": self.largest_block, "head_bits": HEAD_BITS}


# docs/export.md has the measurements that led to these choices.
BLOCK_RECIPES = {"q8": BlockRecipe(8, 64), "int4": BlockRecipe(4, 128)}


def block_size(rows: int, largest: int) -> int:
    """Returns the largest power of two, at most `largest` (one itself), that divides a number of rows."""
    return math.gcd(rows, largest)


def check_blocks(name: str, config: GPTConfig) -> None:
    """Raises SlmxError if the number of rows of a matrix is not a multiple of the smallest block."""
    for rows in (config.n_embd, config.n_head * config.head_dim, config.inner):
        if rows % SMALLEST_BLOCK:
            raise SlmxError(f"{name} needs widths that its blocks of {SMALLEST_BLOCK} divide, not {rows}; use --int8")


def quantize_blocks(
    weights: npt.NDArray[np.float32], bits: int, block: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Rounds the weights of each block to whole numbers of a scale: of those tried, the one of least squared error.

    Args:
        weights: float [channels, inputs].
        bits: Bits of a weight, 8 or 4.
        block: The number of weights that share a scale. It divides `inputs`.

    Returns:
        The whole numbers with 2^(bits - 1) added, uint8 [channels, blocks, block], and the scales [channels, blocks].
    """
    half = 2 ** (bits - 1)
    blocks = weights.reshape(len(weights), -1, block)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)
    exact = (largest / -half).astype(np.float32)
    exact[np.abs(exact) < np.finfo(np.float32).tiny] = 1
    wanted = blocks / exact
    numbers = np.empty_like(wanted)

    def round_to(scales: npt.NDArray[np.float32]) -> None:  # in place: other ways take several times as long
        np.divide(wanted, scales, out=numbers)
        np.clip(np.rint(numbers, out=numbers), -half, half - 1, out=numbers)

    best, least = np.ones_like(exact), np.full_like(exact, np.inf)
    for percent in SCALES:
        scale = np.array(percent / 100, np.float32)
        round_to(scale)
        numbers *= scale
        numbers -= wanted
        error = np.einsum("cbi,cbi->cb", numbers, numbers)[..., None]
        best, least = np.where(error < least, scale, best), np.minimum(error, least)
    round_to(best)
    return (numbers + half).astype(np.uint8), (exact * best)[..., 0]


@dataclass(frozen=True)
class Blocks:
    """A matrix in blocks, as MatMulNBits reads it.

    Attributes:
        name: Its name in the graph.
        bits: Bits of a weight.
        values: The numbers of `quantize_blocks`, uint8 [channels, blocks, block].
        scales: float [channels, blocks].
    """

    name: str
    bits: int
    values: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.float32]

    @property
    def names(self) -> tuple[str, str]:
        """The names of the stored numbers and scales."""
        return f"{self.name}_Q{self.bits}", f"{self.name}_scale"

    def tensors(self) -> list[onnx.TensorProto]:
        """Returns the stored tensors. A byte holds one number, or two of 4 bits with the first in its low half."""
        values = self.values if self.bits == 8 else self.values[..., 0::2] | self.values[..., 1::2] << 4
        arrays = (values, self.scales)
        return [numpy_helper.from_array(array, name) for array, name in zip(arrays, self.names, strict=True)]

    def multiply(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """Returns the node that takes the place of a MatMul by this matrix."""
        channels, blocks, block = self.values.shape
        return helper.make_node(
            "MatMulNBits",
            [node.input[0], *self.names],
            node.output,
            node.name,
            domain=CONTRIB,
            K=blocks * block,
            N=channels,
            bits=self.bits,
            block_size=block,
            accuracy_level=INT8_ACTIVATIONS,
        )


def quantize_blockwise(source: Path, target: Path, recipe: BlockRecipe) -> None:
    """Writes the form of a float graph whose matrices and token table are stored in blocks of weights.

    A tied head and the embedding read the same stored numbers. The embedding gathers rows of them with standard
    operators, because onnxruntime 1.22 has no GatherBlockQuantized for 8 bits.

    Args:
        source: The float32 graph.
        target: Where the quantized graph is written.
        recipe: How to quantize.
    """
    model = onnx.load(source)
    graph = model.graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    tied = UNTIED_HEAD not in weights
    table, head = (TOKEN_TABLE, TOKEN_TABLE) if tied else (UNTIED_TABLE, UNTIED_HEAD)
    stored: dict[str, Blocks] = {}
    for node in graph.node:
        name = node.input[1] if node.op_type == "MatMul" else ""
        if name in weights:
            bits = HEAD_BITS if name == head else recipe.bits
            stored[name] = _blocks(name, weights[name].T, bits, recipe.largest_block)
            node.CopyFrom(stored[name].multiply(node))
    if not tied:
        stored[table] = _blocks(table, weights[table], HEAD_BITS, recipe.largest_block)
    _gather_rows(graph, stored[table])
    for name, blocks in stored.items():
        graph.initializer.remove(next(tensor for tensor in graph.initializer if tensor.name == name))
        graph.initializer.extend(blocks.tensors())
    onnx.save_model(model, target)


def _blocks(name: str, weights: npt.NDArray[np.float32], bits: int, largest: int) -> Blocks:
    """Returns a matrix [channels, inputs] in blocks."""
    return Blocks(name, bits, *quantize_blocks(weights, bits, block_size(weights.shape[1], largest)))


def _gather_rows(graph: onnx.GraphProto, table: Blocks) -> None:
    """Makes the embedding gather rows of the table's 8-bit numbers and multiply each block by its scale."""
    old = [node for node in graph.node if node.name in EMBEDDING]
    place = next(index for index, node in enumerate(graph.node) if node.name in EMBEDDING)
    ids = graph.node[place].input[1]
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
    for node in old:
        graph.node.remove(node)
    for offset, node in enumerate(nodes):
        graph.node.insert(place + offset, node)
    constants: dict[str, npt.NDArray[np.generic]] = {
        "wte.one": np.array(1, np.float32),
        "wte.zero": np.array(128, np.uint8),
        "wte.last_axis": np.array([-1]),
        "wte.joined": np.array([0, 0, -1]),
    }
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
