"""Counts the weights of dynamic int8 that are at the ends of their range."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from export.formats.graph import SCALE, STORED, ZERO_POINT
from runtimes.bundle.figures import Saturation

HALF_A_STEP = 0.51  # a float32 scale is rounded, so a weight in the middle of two numbers can be a little farther


def count_saturation(source: Path, quantized: Path) -> Saturation:
    """Compares the stored numbers of an int8 graph with the weights that they stand for.

    Args:
        source: The float32 graph that it was made from.
        quantized: The int8 graph.
    """
    weights = {tensor.name: tensor for tensor in onnx.load(source).graph.initializer}
    stored = {tensor.name: tensor for tensor in onnx.load(quantized).graph.initializer}
    count = at_ends = clipped = 0
    for name, tensor in stored.items():
        matrix = name.removesuffix(STORED)
        if matrix == name or matrix not in weights:
            continue
        numbers = numpy_helper.to_array(tensor).astype(np.int32)
        scale = numpy_helper.to_array(stored[matrix + SCALE]).astype(np.float32)
        zero = stored.get(matrix + ZERO_POINT)  # an embedding of its own has none
        centred = numbers - (0 if zero is None else numpy_helper.to_array(zero).astype(np.int32))
        ends = (numbers == numbers.min()) | (numbers == numbers.max())
        error = np.abs(centred.astype(np.float32) * scale - numpy_helper.to_array(weights[matrix]))
        count += numbers.size
        at_ends += int(ends.sum())
        clipped += int((ends & (error > HALF_A_STEP * scale)).sum())
    return Saturation(count, at_ends, clipped)
