"""Makes the 8-bit weights of a model signed in memory, on processors that multiply signed weights exactly.

A bundle stores dynamic int8 weights as uint8, which every processor multiplies exactly. onnxruntime multiplies int8
weights faster on x86 with VNNI and on ARM. On other x86 processors it adds pairs of products of int8 weights in 16
bits, which saturate. A weight minus its zero point stays the same if 128 is subtracted from both, so the model
computes the same logits in both forms, and only the highest bit of each byte differs.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import numpy as np

from runtimes.engine.exact_products import signed_is_exact
from runtimes.engine.protobuf import (
    ATTRIBUTE_GRAPH,
    ATTRIBUTE_GRAPHS,
    GRAPH_INITIALIZER,
    GRAPH_INPUT,
    GRAPH_NODE,
    GRAPH_OUTPUT,
    GRAPH_VALUE_INFO,
    INT8,
    LENGTH,
    MODEL_GRAPH,
    NODE_ATTRIBUTE,
    NODE_INPUT,
    NODE_OPERATOR,
    NODE_OUTPUT,
    TENSOR_DIMS,
    TENSOR_INT32,
    TENSOR_NAME,
    TENSOR_RAW,
    TENSOR_TYPE,
    UINT8,
    VALUE_NAME,
    Field,
    read_fields,
    read_text,
    read_varint,
)

# The inputs that accept int8 instead of uint8 if all of them change together.
WEIGHT_INPUTS = {"MatMulInteger": (1, 3), "Gather": (0,), "DequantizeLinear": (0, 2)}
HIGHEST_BIT = 0x80


class _Edit(NamedTuple):
    """How a tensor becomes int8: where its type is, where its bytes are, and what replaces the values at `at`."""

    type_at: int
    at: int
    end: int
    values: bytes | None


def make_weights_signed(model: bytearray) -> None:
    """Changes uint8 weights of a model to int8 in place, if this processor multiplies int8 weights exactly.

    The changed model gives the same logits. The model stays as it is if it has no uint8 weights of MatMulInteger, or
    uses them in another way than slmx's export does. A damaged model also stays, and onnxruntime refuses it.

    Args:
        model: The content of an ONNX or .ort file.
    """
    if b"MatMulInteger" not in model or not signed_is_exact():
        return
    with suppress(ValueError, LookupError):  # it is no protobuf, or damaged
        edits = _edits(model)
        content = np.frombuffer(model, np.uint8)
        for edit in edits:
            content[edit.type_at] = INT8
            if edit.values is None:
                content[edit.at : edit.end] ^= HIGHEST_BIT
            else:
                content[edit.at : edit.end] = np.frombuffer(edit.values, np.uint8)


def _edits(model: bytearray) -> list[_Edit]:
    """Returns the changes that make the uint8 tensors of a model int8; ValueError or LookupError if one is unknown."""
    (graph,) = (field for field in read_fields(model, 0, len(model)) if field.key == MODEL_GRAPH)
    fields = list(read_fields(model, graph.at, graph.end))
    edits: list[_Edit] = []
    changed: set[str] = set()
    for field in fields:
        if field.key == GRAPH_INITIALIZER:
            tensor = [part for part in read_fields(model, field.at, field.end) if part.key != TENSOR_DIMS]
            parts = {part.key: part for part in tensor}
            if TENSOR_TYPE in parts and parts[TENSOR_TYPE].number == UINT8:
                if len(parts) != len(tensor) or set(parts) - {TENSOR_TYPE, TENSOR_INT32, TENSOR_NAME, TENSOR_RAW}:
                    raise ValueError("a tensor in another form")
                changed.add(read_text(model, parts[TENSOR_NAME]))
                edits.append(_edit(model, parts[TENSOR_TYPE], parts.get(TENSOR_RAW), parts.get(TENSOR_INT32)))
    _check_uses(model, fields, changed)
    return edits


def _edit(model: bytearray, kind: Field, raw: Field | None, packed: Field | None) -> _Edit:
    """Returns the change of a tensor, given the fields of its type and its values; ValueError if it is unknown."""
    if raw is not None and packed is None and kind.end == kind.at + 1:
        return _Edit(kind.at, raw.at, raw.end, None)
    # onnx stores a single number like this. Its new form is as long: the tag, the length in one or two bytes, a byte.
    if raw is None and packed is not None and kind.end == kind.at + 1 and packed.at == packed.start + 2:
        number, end = read_varint(model, packed.at)
        lengths = {3: [1], 4: [0x81, 0]}
        if end == packed.end and number < 256 and end - packed.start in lengths:
            length = lengths[end - packed.start]
            new = bytes([TENSOR_RAW << 3 | LENGTH, *length, number ^ HIGHEST_BIT])
            return _Edit(kind.at, packed.start, end, new)
    raise ValueError("values in another form")


def _check_uses(model: bytearray, graph: list[Field], changed: set[str]) -> None:
    """Raises ValueError if a graph uses one of the values `changed`, which are uint8, where int8 is not accepted."""
    for field in graph:
        if field.key == GRAPH_NODE:
            parts = list(read_fields(model, field.at, field.end))
            inputs, outputs, operators = (
                [read_text(model, part) for part in parts if part.key == key]
                for key in (NODE_INPUT, NODE_OUTPUT, NODE_OPERATOR)
            )
            places = [place for place, name in enumerate(inputs) if name in changed]
            allowed = WEIGHT_INPUTS.get(operators[0], ())
            if any(place not in allowed for place in places) or any(
                inner.key in (ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS)
                for part in parts
                if part.key == NODE_ATTRIBUTE
                for inner in read_fields(model, part.at, part.end)
            ):
                raise ValueError("another use of uint8, or a graph in a graph")
            if places and operators == ["Gather"]:
                changed.update(outputs)
        elif field.key in (GRAPH_INPUT, GRAPH_OUTPUT, GRAPH_VALUE_INFO):
            names = (part for part in read_fields(model, field.at, field.end) if part.key == VALUE_NAME)
            if any(read_text(model, name) in changed for name in names):
                raise ValueError("a declared type")
