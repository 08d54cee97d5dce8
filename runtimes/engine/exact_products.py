"""Finds out whether onnxruntime multiplies uint8 activations by int8 weights exactly on this processor.

It does with VNNI on x86 and on ARM. On other x86 processors it adds pairs of products in 16 bits, which saturate.
The instruction sets that a system lists do not tell which code onnxruntime uses, so a small product is computed.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnxruntime as ort

from runtimes.engine.protobuf import (
    DIM_NAME,
    DIM_VALUE,
    GRAPH_INITIALIZER,
    GRAPH_INPUT,
    GRAPH_NAME,
    GRAPH_NODE,
    GRAPH_OUTPUT,
    INT8,
    INT32,
    LENGTH,
    MODEL_GRAPH,
    MODEL_IR_VERSION,
    MODEL_OPSET,
    NODE_INPUT,
    NODE_OPERATOR,
    NODE_OUTPUT,
    OPSET_VERSION,
    SHAPE_DIM,
    TENSOR_DIMS,
    TENSOR_NAME,
    TENSOR_RAW,
    TENSOR_TYPE,
    TYPE_ELEMENT,
    TYPE_SHAPE,
    TYPE_TENSOR,
    UINT8,
    VALUE_NAME,
    VALUE_TYPE,
    VARINT,
)

DEPTH, WIDTH = 256, 32
LARGEST, LARGEST_SIGNED = 255, 127


@cache
def signed_is_exact() -> bool:
    """Returns whether products with int8 weights are exact, for one row of activations and for several."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(probe(), options, providers=["CPUExecutionProvider"])
    products = (session.run(None, {"a": np.full((rows, DEPTH), LARGEST, np.uint8)})[0] for rows in (1, 8))
    return all(bool((product == LARGEST * LARGEST_SIGNED * DEPTH).all()) for product in products)


def probe() -> bytes:
    """Returns an ONNX model: the product of `a`, uint8 [rows, 256], and int8 weights [256, 32] that are all 127."""
    weights = _message(
        (TENSOR_DIMS, DEPTH),
        (TENSOR_DIMS, WIDTH),
        (TENSOR_TYPE, INT8),
        (TENSOR_NAME, b"b"),
        (TENSOR_RAW, bytes([LARGEST_SIGNED]) * (DEPTH * WIDTH)),
    )
    node = _message(
        (NODE_INPUT, b"a"), (NODE_INPUT, b"b"), (NODE_OUTPUT, b"product"), (NODE_OPERATOR, b"MatMulInteger")
    )
    graph = _message(
        (GRAPH_NODE, node),
        (GRAPH_NAME, b"probe"),
        (GRAPH_INITIALIZER, weights),
        (GRAPH_INPUT, _value(b"a", UINT8, DEPTH)),
        (GRAPH_OUTPUT, _value(b"product", INT32, WIDTH)),
    )
    return _message((MODEL_IR_VERSION, 8), (MODEL_GRAPH, graph), (MODEL_OPSET, _message((OPSET_VERSION, 13))))


def _value(name: bytes, kind: int, columns: int) -> bytes:
    """Returns the declaration of a value [rows, columns]."""
    shape = _message((SHAPE_DIM, _message((DIM_NAME, b"rows"))), (SHAPE_DIM, _message((DIM_VALUE, columns))))
    tensor = _message((TYPE_ELEMENT, kind), (TYPE_SHAPE, shape))
    return _message((VALUE_NAME, name), (VALUE_TYPE, _message((TYPE_TENSOR, tensor))))


def _message(*fields: tuple[int, int | bytes]) -> bytes:
    """Returns a protobuf message of fields, each a number with its value."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts += [_varint(number << 3 | VARINT), _varint(value)]
        else:
            parts += [_varint(number << 3 | LENGTH), _varint(len(value)), value]
    return b"".join(parts)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])
