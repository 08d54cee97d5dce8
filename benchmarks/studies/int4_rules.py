"""Compares rules that round the matrices of int4 without training: python -m benchmarks.studies.int4_rules.

    python -m benchmarks.studies.int4_rules --text FILE --calibration-text FILE --checkpoint slm/pretrained/micro

Every rule has the blocks of the export. All but one have its token table in 8 bits. "Rise" is the relative rise in bits
per byte over fp32, with a 95 % interval that is clustered by story. Each rule reads the same text in whole windows. The
rules of onnxruntime are those of its MatMulNBitsQuantizer (HQQ, k-quant and GPTQ), called for one matrix at a time,
because that class has one size of blocks for all matrices. The export samples the stories that its GPTQ reads.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
import typer
from onnx import numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import HQQWeightOnlyQuantConfig, HQQWeightOnlyQuantizer
from onnxruntime.quantization.neural_compressor.weight_only import gptq, quant_tensor, quant_tensor_k_quant_cpu

from benchmarks.evaluation.intervals import Estimate, ratio
from benchmarks.evaluation.reading import Way, nats
from benchmarks.evaluation.subject import Subject
from benchmarks.evaluation.text import EncodedText, StoryText
from benchmarks.program import run
from benchmarks.studies.figures import rise
from benchmarks.studies.results import Out, write_results
from export.formats.blockwise import StoredBlocks, quantize_blockwise
from export.formats.fused import export_onnx
from export.formats.gptq import DAMPING, calibrate, input_hessians, round_gptq
from export.formats.graph import head_name
from runtimes.engine.arrays import FloatArray
from runtimes.engine.session import Session
from slm.blocks import BLOCK_RECIPES, BlockRecipe, Blocks, block_size, quantize_blocks
from slm.checkpoint import Checkpoint, load_checkpoint
from slm.data.corpus import encode_stories
from slm.data.sources import read_stories
from slm.folder_kind import PRETRAINED
from slm.presets import GPTConfig
from slm.storage.hashing import sha256_of

FLOAT, PRESENT, SMALL_HEAD = "fp32", "GPTQ of the export, own stories", "the same, token table in 4 bits"
BITS, HALF = 4, 8
CALIBRATION_STORIES = 2000

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Matrix:
    """A matrix to round.

    Attributes:
        weights: float [channels, inputs].
        block: The number of weights that share a scale.
        hessian: That of `export.formats.gptq.input_hessians` for the calibration text, float [inputs, inputs].
    """

    weights: FloatArray
    block: int
    hessian: FloatArray


@dataclass(frozen=True)
class Rounded:
    """A rounded matrix.

    Attributes:
        blocks: Its numbers and scales.
        zero_points: The number that stands for 0 in each block, uint8 or float [channels, blocks]; None if it is 8.
    """

    blocks: Blocks
    zero_points: npt.NDArray[np.generic] | None = None


def _in_blocks(matrix: Matrix, numbers: npt.NDArray[Any], scales: npt.NDArray[Any]) -> Blocks:
    channels = len(matrix.weights)
    return Blocks(
        BITS,
        numbers.reshape(channels, -1, matrix.block).astype(np.uint8),
        scales.reshape(channels, -1).astype(np.float32),
    )


def largest_weight(matrix: Matrix) -> Rounded:
    """Rounds with the scale that makes the weight of the largest magnitude exact."""
    blocks = matrix.weights.reshape(len(matrix.weights), -1, matrix.block)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)
    scales = largest / -HALF
    numbers = np.clip(np.rint(blocks / scales), -HALF, HALF - 1) + HALF
    return Rounded(_in_blocks(matrix, numbers, scales))


def least_squared_error(matrix: Matrix) -> Rounded:
    """Rounds each weight to the nearest number with the scales of the export, as in training for int4."""
    return Rounded(Blocks(BITS, *quantize_blocks(matrix.weights, BITS, matrix.block)))


def half_quadratic(matrix: Matrix) -> Rounded:
    """Rounds with HQQ of onnxruntime, which has float zero points."""
    quantizer = HQQWeightOnlyQuantizer(HQQWeightOnlyQuantConfig(block_size=matrix.block, bits=BITS))
    weights = torch.from_numpy(matrix.weights)
    numbers, scales, zero_points = quantizer.quantize_internal(weights, bits=BITS, group_size=matrix.block)
    return Rounded(_in_blocks(matrix, numbers.numpy(), scales.numpy()), zero_points.numpy())


def k_quant(matrix: Matrix) -> Rounded:
    """Rounds with k-quant of onnxruntime, which has zero points of 4 bits."""
    numbers, scales, zero_points = quant_tensor_k_quant_cpu(matrix.weights, BITS, matrix.block)
    return Rounded(_in_blocks(matrix, numbers, scales), zero_points.reshape(len(matrix.weights), -1))


def gptq_of_onnxruntime(matrix: Matrix, scheme: str) -> Rounded:
    """GPTQ of onnxruntime; `scheme` is "sym" or "asym"."""
    hessian = matrix.hessian.astype(np.float64)
    rounded = gptq(matrix.weights.T.copy(), hessian, BITS, matrix.block, scheme, percdamp=DAMPING, mse=True)
    numbers, scales, zero_points = quant_tensor(rounded.T, BITS, matrix.block, scheme, "uint")
    kept = zero_points.reshape(len(matrix.weights), -1) if scheme == "asym" else None
    return Rounded(_in_blocks(matrix, numbers, scales), kept)


def gptq_of_the_export(matrix: Matrix) -> Rounded:
    """Rounds with GPTQ and the scales that the export fits to each block."""
    return Rounded(round_gptq(matrix.weights, matrix.hessian, BITS, matrix.block))


RULES: dict[str, Callable[[Matrix], Rounded]] = {
    "scale of the largest weight": largest_weight,
    "scale of least squared error": least_squared_error,
    "HQQ of onnxruntime, float zero points": half_quadratic,
    "k-quant of onnxruntime, zero points": k_quant,
    "GPTQ of onnxruntime": lambda matrix: gptq_of_onnxruntime(matrix, "sym"),
    "GPTQ of onnxruntime, zero points": lambda matrix: gptq_of_onnxruntime(matrix, "asym"),
    "GPTQ of the export, training text": gptq_of_the_export,
}


def write_rule(present: Path, target: Path, rounded: dict[str, Rounded]) -> None:
    """Writes int4 with other numbers.

    Args:
        present: The int4 of the export.
        target: Where the graph is written.
        rounded: The matrices by name.
    """
    model = onnx.load(present)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        name = node.input[1].removesuffix(f"_Q{BITS}") if node.op_type == "MatMulNBits" else ""
        if name not in rounded:
            continue
        new = rounded[name]
        for tensor in StoredBlocks(name, new.blocks).tensors():
            stored[tensor.name].CopyFrom(tensor)
        if new.zero_points is not None:
            node.input.append(f"{name}_zero")
            model.graph.initializer.append(numpy_helper.from_array(_packed(new.zero_points), f"{name}_zero"))
    onnx.save_model(model, target)


def _packed(zero_points: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Returns zero points as MatMulNBits reads them: float, or two of 4 bits in a byte of a row."""
    if zero_points.dtype != np.uint8:
        return zero_points
    even = np.pad(zero_points.astype(np.uint8), ((0, 0), (0, zero_points.shape[1] % 2)))
    packed = even[:, 0::2] | even[:, 1::2] << 4
    return packed.astype(np.uint8)


def write_small_head(present: Path, target: Path, fp32: Path, config: GPTConfig) -> int:
    """Writes int4 with the token table in 4 bits.

    The embedding reads a copy in 8 bits of the same numbers, which a file of such a variant would not have.

    Returns:
        The bytes that a file without the copy would have.
    """
    model, name = onnx.load(present), head_name(config)
    (table,) = (numpy_helper.to_array(t) for t in onnx.load(fp32).graph.initializer if t.name == name)
    recipe = BLOCK_RECIPES["int4"]
    small = Blocks(BITS, *quantize_blocks(table.T, BITS, block_size(len(table), recipe.largest_block)))
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    copy = StoredBlocks(name, Blocks(8, small.values + np.uint8(128 - HALF), small.scales))
    for tensor in copy.tensors():
        stored[tensor.name].CopyFrom(tensor)
    (head,) = (node for node in model.graph.node if node.op_type == "MatMulNBits" and node.input[1] == copy.names[0])
    values, _ = StoredBlocks(name, small).tensors()
    model.graph.initializer.append(values)
    head.CopyFrom(StoredBlocks(name, small).multiply(head))
    onnx.save_model(model, target)
    return target.stat().st_size - small.values.size


def write_rules(
    checkpoint: Checkpoint, windows: npt.NDArray[np.int64], folder: Path
) -> Iterator[tuple[str, Path, int]]:
    """Writes fp32 and int4 by each rule; yields name, file, and the bytes of the file."""
    config = checkpoint.model.config
    fp32, present = folder / "fp32.onnx", folder / "int4.onnx"
    recipe: BlockRecipe = BLOCK_RECIPES["int4"]
    export_onnx(checkpoint.model, fp32)
    quantize_blockwise(fp32, present, recipe, calibrate(checkpoint.model, checkpoint.tokenizer))
    yield FLOAT, fp32, fp32.stat().st_size
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(fp32).graph.initializer}
    matrices = {
        name: Matrix(np.ascontiguousarray(weights[name].T), block_size(len(weights[name]), recipe.largest_block), sums)
        for name, sums in input_hessians(checkpoint.model, windows.tolist()).items()
    }
    target = folder / "rule.onnx"
    for rule, round_matrix in RULES.items():
        write_rule(present, target, {name: round_matrix(matrix) for name, matrix in matrices.items()})
        yield rule, target, target.stat().st_size
    yield PRESENT, present, present.stat().st_size
    if config.tied:
        size = write_small_head(present, target, fp32, config)
        yield SMALL_HEAD, target, size


def measure(checkpoint: Checkpoint, text: EncodedText, tokens: int, windows: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Reads the text with fp32 and with int4 by each rule; returns their figures for JSON."""
    found: dict[str, Any] = {}
    costs: dict[str, Floats] = {}
    config = checkpoint.model.config
    with tempfile.TemporaryDirectory() as name:
        for rule, file, size in write_rules(checkpoint, windows, Path(name)):
            session = Session.open(file, config)
            subject = Subject(rule, session, checkpoint.tokenizer, config, size, sha256_of(file), False)
            costs[rule] = nats(subject, text, Way.WINDOWS, tokens, lambda _: None)
            found[rule] = {"bytes": size, "nats per token": float(costs[rule].mean())}
            typer.echo(f"{rule}: {found[rule]}", err=True)
    base = float(costs[FLOAT].mean())

    def share(difference: Floats) -> Estimate:
        return ratio(text.by_story(difference), text.sizes(len(difference))).scaled(1 / base)

    for rule, row in found.items():
        row["rise"] = share(costs[rule] - costs[FLOAT]).to_json()
        row["against the export's"] = share(costs[rule] - costs[PRESENT]).to_json()
    return found


def table(rules: dict[str, Any]) -> str:
    """Returns the figures as Markdown."""
    lines = ["| rule | bytes | rise | against the export's rule |", "|---|---:|---:|---:|"]
    for rule, row in rules.items():
        if rule != FLOAT:
            against = "" if rule == PRESENT else _with_ends(row["against the export's"])
            lines.append(f"| {rule} | {row['bytes']:,} | {rise(row['rise'])} | {against} |")
    return "\n".join(lines)


def _with_ends(estimate: dict[str, Any]) -> str:
    """Returns a difference with the ends of its interval. That of one story has none."""
    value = f"{estimate['value']:+.2%}"
    return value if estimate["low"] is None else f"{value} ({estimate['low']:+.2%} to {estimate['high']:+.2%})"


def main(
    text: Annotated[Path, typer.Option(help="Stories that the model was not trained on.")],
    calibration_text: Annotated[Path, typer.Option(help="Stories that GPTQ may see, of the training text.")],
    checkpoint: Annotated[Path, typer.Option(help="The checkpoint.")] = PRETRAINED / "nano",
    tokens: Annotated[int, typer.Option(min=1, help="The most tokens to predict.")] = 65_536,
    sequences: Annotated[int, typer.Option(min=1, help="Windows of the calibration text.")] = 64,
    out: Out = None,
) -> None:
    """Measure every rule and print a table."""
    loaded = load_checkpoint(checkpoint)
    encoded = EncodedText.encode(StoryText.read([str(text)]), loaded.tokenizer)
    stories = list(islice(read_stories([calibration_text]), CALIBRATION_STORIES))
    windows, _ = encode_stories(stories, loaded.tokenizer).windows(loaded.model.config.block_size)
    rules = measure(loaded, encoded, tokens, windows[:sequences])
    typer.echo(table(rules))
    settings = {"checkpoint": loaded.preset, "text": text.name, "tokens": tokens, "sequences": sequences}
    write_results(out, settings, rules)


if __name__ == "__main__":
    run(main)
