"""What a graph is made of: which matrices are quantized, what is stored, how many nodes onnxruntime leaves."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from export.formats.graph import TOKEN_TABLE, matrix_names
from slm.presets import GPTConfig

QUANTIZED_OPERATORS = ("MatMulInteger", "MatMulNBits")


def check_operators(name: str, path: Path, config: GPTConfig, kept_float: list[str]) -> dict[str, Any]:
    """Count matrices that are quantized and that are not, and nodes; `wrong` lists what should be otherwise.

    Nothing that was to be quantized may be multiplied in float or stored in float a second time, and no
    table as long as the vocabulary may be stored twice.
    """
    graph = onnx.load(path).graph
    expected = set(matrix_names(config.n_layer)) - set(kept_float) if name in ("int8", "int4") else set()
    suffixes = ("_quantized", "_Q4")
    quantized = {
        node.input[1].removesuffix(suffixes[0]).removesuffix(suffixes[1])
        for node in graph.node
        if node.op_type in QUANTIZED_OPERATORS
    }
    stored = {tensor.name: tensor for tensor in graph.initializer}
    wrong = [f"{matrix} was to be quantized and is not" for matrix in sorted(expected - quantized)]
    wrong += [f"{matrix} is quantized and was to stay in float" for matrix in sorted(quantized - expected)]
    wrong += [f"a float copy of {matrix} is stored" for matrix in sorted(quantized & set(stored))]
    tables = [tensor.name for tensor in stored.values() if np.prod(tensor.dims) == config.vocab_size * config.n_embd]
    if len(tables) != 1:
        wrong.append(f"the token table is stored {len(tables)} times")
    floats = [node for node in graph.node if node.op_type == "MatMul" and _matrix(node.input[1]) not in quantized]
    return {"quantized": len(quantized), "float": len(floats), "nodes": optimized_nodes(path), "wrong": wrong}


def _matrix(name: str) -> str:
    return TOKEN_TABLE if name.startswith(TOKEN_TABLE) else name


def optimized_nodes(path: Path) -> int:
    """Nodes that are left when onnxruntime has optimized a graph for this processor."""
    with tempfile.TemporaryDirectory() as name:
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(Path(name) / "optimized.onnx")
        options.log_severity_level = 3
        ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return len(onnx.load(Path(name) / "optimized.onnx").graph.node)
