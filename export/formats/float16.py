"""Weights stored in 16 bits: half the download; onnxruntime turns them back into float32 when it opens the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def store_half(source: Path, target: Path) -> None:
    """Write a float32 graph with its matrices and tables in float16, each behind a Cast that folds at load.

    Computation stays in float32, so any processor runs it; norms and biases stay as they are.
    """
    model = onnx.load(source)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2:
            name = tensor.name
            half = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
            casts.append(helper.make_node("Cast", [f"{name}.half"], [name], f"{name}.cast", to=TensorProto.FLOAT))
    for place, node in enumerate(casts):
        model.graph.node.insert(place, node)
    onnx.save_model(model, target)
