"""Compares rules that round the matrices of int4 without training: python -m benchmarks.studies.int4_rules.

    python -m benchmarks.studies.int4_rules --eval-text FILE --calibration-text FILE --checkpoint slm/pretrained/micro

Every rule has the blocks of the export. All but one have its token table in 8 bits. "Rise" is the relative rise in bits
per byte over fp32, with a 95 % interval that is clustered by story. Each rule reads the same text in whole windows. The
rules of onnxruntime are those of its MatMulNBitsQuantizer (HQQ, k-quant and GPTQ), called for one matrix at a time,
because that class has one size of blocks for all matrices.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
import typer
from onnx import helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import HQQWeightOnlyQuantConfig, HQQWeightOnlyQuantizer
from onnxruntime.quantization.neural_compressor.weight_only import gptq, quant_tensor, quant_tensor_k_quant_cpu

from benchmarks.evaluation.intervals import Estimate, ratio
from benchmarks.evaluation.reading import Way, nats
from benchmarks.evaluation.subject import Subject
from benchmarks.evaluation.text import EncodedText, StoryText
from benchmarks.studies.command import check_folder, command_line, run
from export.formats.blockwise import StoredBlocks, quantize_blockwise
from export.formats.fused import export_onnx
from export.formats.graph import head_name
from runtimes.engine.cache import cache_names
from runtimes.engine.session import Session
from runtimes.system.machine import describe_machine
from slm.blocks import BLOCK_RECIPES, BlockRecipe, Blocks, block_size, quantize_blocks
from slm.checkpoint import Checkpoint, load_checkpoint
from slm.data.corpus import encode_stories
from slm.data.sources import read_stories
from slm.folder_kind import PRETRAINED
from slm.hashing import sha256_of
from slm.presets import GPTConfig

STUDY = "int4_rules"
FLOAT, PRESENT, SMALL_HEAD = "fp32", "least squared error (the export's)", "the same, token table in 4 bits"
BITS, HALF = 4, 8
DAMPING = 0.01  # of GPTQ: the part of the mean of the diagonal that is added to it
CALIBRATION_STORIES = 2000

Floats = npt.NDArray[np.float64]
Weights = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Matrix:
    """A matrix to round.

    Attributes:
        weights: float [channels, inputs].
        block: The number of weights that share a scale.
        products: Sums of the products of each two inputs over the calibration text, float [inputs, inputs].
    """

    weights: Weights
    block: int
    products: Floats


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
    """The scale makes the weight of the largest magnitude exact."""
    blocks = matrix.weights.reshape(len(matrix.weights), -1, matrix.block)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)
    scales = largest / -HALF
    numbers = np.clip(np.rint(blocks / scales), -HALF, HALF - 1) + HALF
    return Rounded(_in_blocks(matrix, numbers, scales))


def least_squared_error(matrix: Matrix) -> Rounded:
    """The rule of the export."""
    return Rounded(Blocks(BITS, *quantize_blocks(matrix.weights, BITS, matrix.block)))


def half_quadratic(matrix: Matrix) -> Rounded:
    """HQQ of onnxruntime, with float zero points."""
    quantizer = HQQWeightOnlyQuantizer(HQQWeightOnlyQuantConfig(block_size=matrix.block, bits=BITS))
    weights = torch.from_numpy(matrix.weights)
    numbers, scales, zero_points = quantizer.quantize_internal(weights, bits=BITS, group_size=matrix.block)
    return Rounded(_in_blocks(matrix, numbers.numpy(), scales.numpy()), zero_points.numpy())


def k_quant(matrix: Matrix) -> Rounded:
    """k-quant of onnxruntime, with zero points of 4 bits."""
    numbers, scales, zero_points = quant_tensor_k_quant_cpu(matrix.weights, BITS, matrix.block)
    return Rounded(_in_blocks(matrix, numbers, scales), zero_points.reshape(len(matrix.weights), -1))


def gptq_of_onnxruntime(matrix: Matrix, scheme: str) -> Rounded:
    """GPTQ of onnxruntime; `scheme` is "sym" or "asym"."""
    rounded = gptq(
        matrix.weights.T.copy(), matrix.products.copy(), BITS, matrix.block, scheme, percdamp=DAMPING, mse=True
    )
    numbers, scales, zero_points = quant_tensor(rounded.T, BITS, matrix.block, scheme, "uint")
    kept = zero_points.reshape(len(matrix.weights), -1) if scheme == "asym" else None
    return Rounded(_in_blocks(matrix, numbers, scales), kept)


def gptq_with_fitted_scales(matrix: Matrix) -> Rounded:
    """GPTQ (Frantar et al., 2022, arXiv:2210.17323) with the scales that the export fits to each block."""
    rest = matrix.weights.astype(np.float64)
    products = matrix.products + DAMPING * np.mean(np.diag(matrix.products)) * np.eye(len(matrix.products))
    inverse = np.linalg.cholesky(np.linalg.inv(products)).T
    numbers = np.empty_like(rest)
    scales = np.empty((len(rest), rest.shape[1] // matrix.block))
    for index, start in enumerate(range(0, rest.shape[1], matrix.block)):
        end = start + matrix.block
        _, fitted = quantize_blocks(rest[:, start:end].astype(np.float32), BITS, matrix.block)
        scale = scales[:, index] = fitted[:, 0]
        errors = np.empty((len(rest), matrix.block))
        for column in range(start, end):
            numbers[:, column] = np.clip(np.rint(rest[:, column] / scale), -HALF, HALF - 1)
            error = (rest[:, column] - numbers[:, column] * scale) / inverse[column, column]
            rest[:, column + 1 : end] -= np.outer(error, inverse[column, column + 1 : end])
            errors[:, column - start] = error
        rest[:, end:] -= errors @ inverse[start:end, end:]
    return Rounded(_in_blocks(matrix, numbers + HALF, scales))


RULES: dict[str, Callable[[Matrix], Rounded]] = {
    "scale of the largest weight": largest_weight,
    PRESENT: least_squared_error,
    "HQQ of onnxruntime, float zero points": half_quadratic,
    "k-quant of onnxruntime, zero points": k_quant,
    "GPTQ of onnxruntime": lambda matrix: gptq_of_onnxruntime(matrix, "sym"),
    "GPTQ of onnxruntime, zero points": lambda matrix: gptq_of_onnxruntime(matrix, "asym"),
    "GPTQ with the export's scales": gptq_with_fitted_scales,
}


def calibrate(fp32: Path, config: GPTConfig, windows: npt.NDArray[np.int64]) -> dict[str, Floats]:
    """Reads a text with the float model.

    Args:
        fp32: The float graph.
        config: Its shape.
        windows: The ids to read, int64 [windows, context].

    Returns:
        For each matrix of the layers, the sums of the products of each two of its inputs.
    """
    model = onnx.load(fp32)
    chosen = {node.input[1]: node.input[0] for node in model.graph.node if node.op_type == "MatMul"}
    del chosen[head_name(config)]
    model.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in {*chosen.values()}
    )
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    empty = np.zeros((1, config.kv_heads, 0, config.head_dim), np.float32)
    feed = dict.fromkeys(cache_names(config.n_layer)[0], empty)
    feed["position_ids"] = np.arange(windows.shape[1])[None]
    feed["attention_mask"] = np.ones((1, windows.shape[1]), np.int64)
    sums: dict[str, Floats] = {}
    for ids in windows:
        found = session.run([*chosen.values()], {**feed, "input_ids": ids[None]})
        for name, inputs in zip(chosen, found, strict=True):
            rows = inputs[0].astype(np.float64)
            sums[name] = sums.get(name, 0) + rows.T @ rows
    return sums


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
    packed: npt.NDArray[np.uint8] = even[:, 0::2] | even[:, 1::2] << 4
    return packed


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


def write_rules(checkpoint: Checkpoint, windows: npt.NDArray[np.int64], folder: Path) -> Iterator[tuple[str, Path, int]]:
    """Writes fp32 and int4 by each rule; yields name, file, and the bytes of the file."""
    config = checkpoint.model.config
    fp32, present = folder / "fp32.onnx", folder / "int4.onnx"
    recipe: BlockRecipe = BLOCK_RECIPES["int4"]
    export_onnx(checkpoint.model, fp32)
    quantize_blockwise(fp32, present, recipe)
    yield FLOAT, fp32, fp32.stat().st_size
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(fp32).graph.initializer}
    matrices = {
        name: Matrix(np.ascontiguousarray(weights[name].T), block_size(len(weights[name]), recipe.largest_block), sums)
        for name, sums in calibrate(fp32, config, windows).items()
    }
    target = folder / "rule.onnx"
    for rule, round_matrix in RULES.items():
        write_rule(present, target, {name: round_matrix(matrix) for name, matrix in matrices.items()})
        yield rule, target, target.stat().st_size
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
            rise, against = row["rise"], row["against the export's"]
            interval = "" if rule == PRESENT else f"{against['value']:+.2%} ({against['low']:+.2%} to {against['high']:+.2%})"
            lines.append(
                f"| {rule} | {row['bytes']:,} | {rise['value']:+.2%} +-{(rise['high'] - rise['low']) / 2:.2%} | {interval} |"
            )
    return "\n".join(lines)


def main(
    eval_text: Annotated[Path, typer.Option(help="Stories that the model was not trained on.")],
    calibration_text: Annotated[Path, typer.Option(help="Stories that GPTQ may see, of the training text.")],
    checkpoint: Annotated[Path, typer.Option(help="The checkpoint.")] = PRETRAINED / "nano",
    tokens: Annotated[int, typer.Option(min=1, help="The most tokens to predict.")] = 65_536,
    sequences: Annotated[int, typer.Option(min=1, help="Windows of the calibration text.")] = 64,
    out: Annotated[Path | None, typer.Option(help="Write the figures to this JSON file.")] = None,
) -> None:
    """Measure every rule and print a table."""
    if out is not None:
        check_folder(out)
    loaded = load_checkpoint(checkpoint)
    text = EncodedText.encode(StoryText.read([str(eval_text)]), loaded.tokenizer)
    stories = list(islice(read_stories([calibration_text]), CALIBRATION_STORIES))
    windows, _ = encode_stories(stories, loaded.tokenizer).windows(loaded.model.config.block_size)
    rules = measure(loaded, text, tokens, windows[:sequences])
    typer.echo(table(rules))
    if out is not None:
        report = {"command": command_line(STUDY), "machine": describe_machine(), "tokens": tokens, "rules": rules}
        out.write_text(json.dumps(report, indent=1) + "\n", "utf-8", newline="\n")


if __name__ == "__main__":
    run(STUDY, main)
