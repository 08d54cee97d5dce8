"""Checks which matrices of a graph are quantized and stored, and counts its nodes after optimization."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnxruntime as ort

from export.formats.graph import (
    SCALE,
    STORED,
    TOKEN_TABLE,
    UNTIED_HEAD,
    UNTIED_TABLE,
    ZERO_POINT,
    load_graph,
    matrix_names,
)
from runtimes.bundle.figures import Operators
from runtimes.bundle.variants import VARIANTS
from slm.presets import GPTConfig

QUANTIZED_OPERATORS = ("MatMulInteger", "MatMulNBits")
# `export.formats.blockwise` adds the two others.
QUANTIZED_ENDINGS = (STORED, "_Q8", "_Q4")


def check_operators(name: str, file: Path | bytes, config: GPTConfig, kept_float: Sequence[str]) -> Operators:
    """Counts the matrices that are quantized and those that are not, and checks that they are the requested ones.

    A quantized matrix must not be multiplied in float, and no float copy of it may be stored. The token table may be
    stored only once. Tensors are recognized by name. Their shapes do not identify them, because the vocabulary can be
    as large as the context or four times the width.

    Args:
        name: The variant's name.
        file: Its ONNX file, or the content of it.
        config: The model's shape.
        kept_float: Names of the matrices that must stay in float.

    Returns:
        The numbers of matrices and nodes, and the faults.
    """
    graph = load_graph(file).graph
    expected = set() if VARIANTS[name].is_float else set(matrix_names(config)) - set(kept_float)
    quantized = {_matrix(node.input[1]) for node in graph.node if node.op_type in QUANTIZED_OPERATORS}
    stored = {tensor.name for tensor in graph.initializer}
    wrong = [f"{matrix} was to be quantized and is not" for matrix in sorted(expected - quantized)]
    wrong += [f"{matrix} is quantized and was to stay in float" for matrix in sorted(quantized - expected)]
    wrong += [f"a float copy of {matrix} is stored" for matrix in sorted(quantized & stored)]
    for table in (TOKEN_TABLE,) if config.tied else (UNTIED_TABLE, UNTIED_HEAD):
        copies = [tensor for tensor in stored if tensor.startswith(table) and not tensor.endswith((SCALE, ZERO_POINT))]
        if len(copies) != 1:
            wrong.append(f"{'the token table' if config.tied else table} is stored {len(copies)} times")
    floats = [node for node in graph.node if node.op_type == "MatMul" and node.input[1] not in quantized]
    return Operators(len(quantized), len(floats), optimized_nodes(file), tuple(wrong))


def _matrix(name: str) -> str:
    """Returns the name of the matrix whose quantized values a tensor holds."""
    for ending in QUANTIZED_ENDINGS:
        name = name.removesuffix(ending)
    return name


def optimized_nodes(file: Path | bytes) -> int:
    """Returns the nodes of an ONNX file or its content, after onnxruntime has optimized it for this processor."""
    with tempfile.TemporaryDirectory() as name:
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(Path(name) / "optimized.onnx")
        options.log_severity_level = 3
        ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        return len(onnx.load(Path(name) / "optimized.onnx").graph.node)
