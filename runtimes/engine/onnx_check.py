"""Refuses an ONNX model that names weights outside its file or operators of other packages, before it is opened.

The hash of a bundle covers the file alone, so a file that it names could hold anything. Operators of other packages
come with libraries, which are code. If an operator Split has another number of parts than outputs, onnxruntime 1.32
ends the process, or counts to that number. The walk visits every graph, also those in attributes, functions and
training parts, and it does not trust the order or the number of fields.
"""

from __future__ import annotations

from runtimes.engine.protobuf import (
    ATTRIBUTE_GRAPH,
    ATTRIBUTE_GRAPHS,
    ATTRIBUTE_INT,
    ATTRIBUTE_NAME,
    ATTRIBUTE_SPARSE,
    ATTRIBUTE_SPARSES,
    ATTRIBUTE_TENSOR,
    ATTRIBUTE_TENSORS,
    FUNCTION_ATTRIBUTE,
    FUNCTION_NODE,
    GRAPH_INITIALIZER,
    GRAPH_NODE,
    GRAPH_SPARSE,
    MODEL_FUNCTIONS,
    MODEL_GRAPH,
    MODEL_TRAINING,
    NODE_ATTRIBUTE,
    NODE_DOMAIN,
    NODE_OUTPUT,
    SPARSE_INDICES,
    SPARSE_VALUES,
    TENSOR_EXTERNAL,
    TENSOR_LOCATION,
    TRAINING_ALGORITHM,
    TRAINING_START,
    read_fields,
)
from slm.console.errors import SlmxError

# The domains of the operators that onnxruntime itself has and that slmx writes. The first two are the same one.
DOMAINS = (b"", b"ai.onnx", b"com.microsoft")
PARTS = b"num_outputs"  # the attribute of Split with the number of its parts
# A model of 24 layers has 10,000 fields that are visited. This many take about a second.
MOST_FIELDS = 2**20
# Bytes 4 to 8 of an .ort file, which is no protobuf. It holds no graph that onnxruntime has not compiled before.
ORT_MARK = b"ORTM"

MODEL, GRAPH, NODE, ATTRIBUTE, FUNCTION, TRAINING, TENSOR, SPARSE = range(8)
# The messages in a message that can hold weights or operators: the number of the field, and what it holds.
INSIDE = {
    MODEL: {MODEL_GRAPH: GRAPH, MODEL_TRAINING: TRAINING, MODEL_FUNCTIONS: FUNCTION},
    TRAINING: {TRAINING_START: GRAPH, TRAINING_ALGORITHM: GRAPH},
    FUNCTION: {FUNCTION_NODE: NODE, FUNCTION_ATTRIBUTE: ATTRIBUTE},
    GRAPH: {GRAPH_NODE: NODE, GRAPH_INITIALIZER: TENSOR, GRAPH_SPARSE: SPARSE},
    NODE: {NODE_ATTRIBUTE: ATTRIBUTE},
    ATTRIBUTE: {
        ATTRIBUTE_TENSOR: TENSOR,
        ATTRIBUTE_GRAPH: GRAPH,
        ATTRIBUTE_TENSORS: TENSOR,
        ATTRIBUTE_GRAPHS: GRAPH,
        ATTRIBUTE_SPARSE: SPARSE,
        ATTRIBUTE_SPARSES: SPARSE,
    },
    SPARSE: {SPARSE_VALUES: TENSOR, SPARSE_INDICES: TENSOR},
    TENSOR: {},
}


def check_onnx(model: bytearray, where: str) -> None:
    """Checks that a model needs nothing but its own bytes and the operators of onnxruntime.

    Args:
        model: The content of an ONNX or .ort file.
        where: The place to name in error messages.

    Raises:
        SlmxError: It needs more, or it is damaged.
    """
    if model[4:8] == ORT_MARK:
        return
    try:
        _walk(model)
    except (ValueError, IndexError) as error:
        reason = "it is cut off" if isinstance(error, IndexError) else error
        raise SlmxError(f"{where}: not a model that slmx opens ({reason}); copy it again, or export it again") from None


def _walk(model: bytearray) -> None:
    """Raises ValueError or IndexError if a model needs other files or operators, or is damaged."""
    waiting = [(MODEL, 0, len(model), 0)]
    left = MOST_FIELDS
    while waiting:
        kind, start, end, made = waiting.pop()  # `made` is the number of outputs of the operator around an attribute
        inside, found = INSIDE[kind], list[tuple[int, int, int]]()
        outputs, is_parts, parts = 0, False, set[int]()
        for field in read_fields(model, start, end):
            left -= 1
            if left < 0:
                raise ValueError(f"more than {MOST_FIELDS:,} parts")
            if (inner := inside.get(field.key)) is not None:
                found.append((inner, field.at, field.end))
            elif kind == TENSOR:
                if field.key == TENSOR_EXTERNAL or (field.key == TENSOR_LOCATION and field.number):
                    raise ValueError("its weights are in another file, which no hash covers")
            elif kind == ATTRIBUTE and field.key == ATTRIBUTE_NAME:
                is_parts = is_parts or model[field.at : field.end] == PARTS
            elif kind == ATTRIBUTE and field.key == ATTRIBUTE_INT:
                parts.add(field.number)
            elif kind == NODE and field.key == NODE_OUTPUT:
                outputs += 1
            elif kind == NODE and field.key == NODE_DOMAIN:
                domain = bytes(model[field.at : field.end])
                if domain not in DOMAINS:
                    shown = domain.decode("utf-8", "replace")[:40]
                    raise ValueError(f"an operator of {shown!a}, which is another package")
        if is_parts and parts - {made}:
            raise ValueError(f"an operator with {made} outputs that makes {max(parts)}")
        waiting += [(*message, outputs) for message in found]
