"""Stores weights in 16 bits, which halves the download. onnxruntime converts them to float32 when it opens the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.formats.graph import ROTATION
from slm.console.errors import SlmxError

LARGEST = float(np.finfo(np.float16).max)


def store_float16(source: Path, target: Path) -> None:
    """Writes a float32 graph with its matrices and tables in float16, each followed by a Cast.

    onnxruntime removes the Casts when it opens the file. Norms and biases are not changed. Computation stays in
    float32, so any processor can run it.

    Args:
        source: The float32 graph.
        target: The file to write.

    Raises:
        SlmxError: A matrix holds a value that float16 cannot represent.
    """
    model = onnx.load(source)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2 and tensor.name not in ROTATION:
            name, values = tensor.name, numpy_helper.to_array(tensor)
            if not np.abs(values).max() <= LARGEST:
                raise SlmxError(
                    f"{name} holds values beyond {LARGEST:,.0f}, the limit of float16; export without --fp16"
                )
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
            casts.append(helper.make_node("Cast", [f"{name}.half"], [name], f"{name}.cast", to=TensorProto.FLOAT))
    for place, node in enumerate(casts):
        model.graph.node.insert(place, node)
    onnx.save_model(model, target)
