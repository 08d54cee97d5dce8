"""Reads protobuf messages without a package for it. Nothing is copied, and each field is given by its place.

The encoding is that of https://protobuf.dev/programming-guides/encoding. The numbers of fields and types are those of
onnx.proto in https://github.com/onnx/onnx.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
LARGEST_TAG = 2**32 - 1
MODEL_IR_VERSION, MODEL_GRAPH, MODEL_OPSET, MODEL_TRAINING, MODEL_FUNCTIONS = 1, 7, 8, 20, 25
OPSET_VERSION = 2
GRAPH_NODE, GRAPH_NAME, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT = 1, 2, 5, 11, 12
GRAPH_VALUE_INFO, GRAPH_SPARSE = 13, 15
NODE_INPUT, NODE_OUTPUT, NODE_OPERATOR, NODE_ATTRIBUTE, NODE_DOMAIN = 1, 2, 4, 5, 7
FUNCTION_NODE, FUNCTION_ATTRIBUTE = 7, 11
TRAINING_START, TRAINING_ALGORITHM = 1, 2
SPARSE_VALUES, SPARSE_INDICES = 1, 2
ATTRIBUTE_NAME, ATTRIBUTE_INT = 1, 3
ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPH, ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS = 5, 6, 10, 11
ATTRIBUTE_SPARSE, ATTRIBUTE_SPARSES = 22, 23
TENSOR_DIMS, TENSOR_TYPE, TENSOR_INT32, TENSOR_NAME, TENSOR_RAW = 1, 2, 5, 8, 9
TENSOR_EXTERNAL, TENSOR_LOCATION = 13, 14
UINT8, INT8, INT32 = 2, 3, 6  # in TENSOR_TYPE and TYPE_ELEMENT
VALUE_NAME, VALUE_TYPE = 1, 2
TYPE_TENSOR = 1
TYPE_ELEMENT, TYPE_SHAPE = 1, 2
SHAPE_DIM, DIM_VALUE, DIM_NAME = 1, 1, 2


class Field(NamedTuple):
    """A field of a message.

    Attributes:
        key: Its number in the message.
        start: Where its tag starts.
        at: Where its value starts.
        end: Where the next field starts.
        number: The value of a whole number; 0 for other kinds.
    """

    key: int
    start: int
    at: int
    end: int
    number: int


def read_fields(message: bytearray, at: int, end: int) -> Iterator[Field]:
    """Yields the fields of the message between two places; ValueError or IndexError if it is damaged."""
    while at < end:
        start, number = at, 0
        tag, at = read_varint(message, at)
        kind = tag & 7
        if kind == VARINT:
            number, after = read_varint(message, at)
        elif kind == LENGTH:
            size, at = read_varint(message, at)
            after = at + size
        else:
            after = at + {FIXED64: 8, FIXED32: 4}[kind] if kind in (FIXED64, FIXED32) else end + 1
        if after > end or tag > LARGEST_TAG:
            raise ValueError("a field that is longer than its message, or of an unknown kind")
        yield Field(tag >> 3, start, at, after, number)
        at = after


def read_text(message: bytearray, field: Field) -> str:
    """Returns the text of a field; ValueError if it is no UTF-8."""
    return message[field.at : field.end].decode("utf-8")


def read_varint(message: bytearray, at: int) -> tuple[int, int]:
    """Returns the number that starts at a place, and the place after it; ValueError or IndexError if there is none."""
    number = shift = 0
    while True:
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
