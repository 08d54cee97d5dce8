"""Checks that a graph has the shape in the manifest, before the graph runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from slm.console.errors import SlmxError
from slm.console.plain_text import as_plain_text
from slm.presets import GPTConfig

if TYPE_CHECKING:
    import onnxruntime as ort

# An export writes `shape_text` of its model under this key in the metadata of a graph.
SHAPE_KEY = "slmx.shape"
PAST = "past_key_values."  # how the names of the inputs of a KV cache begin
FLOATS, INTEGERS = "tensor(float)", "tensor(int64)"


def shape_text(config: GPTConfig) -> str:
    """Returns a shape as the metadata of a graph holds it, such as `block_size=256 vocab_size=8000 ...`."""
    return " ".join(f"{name}={value}" for name, value in config.to_dict().items())


def cache_names(n_layer: int) -> tuple[list[str], list[str]]:
    """Returns the input and the output names of a graph's KV cache, layer by layer, key before value."""
    layers = [(layer, part) for layer in range(n_layer) for part in ("key", "value")]
    return [f"{PAST}{i}.{part}" for i, part in layers], [f"present.{i}.{part}" for i, part in layers]


def check_shape(session: ort.InferenceSession, config: GPTConfig, name: str) -> None:
    """Refuses a graph that is not a model of this shape.

    Inputs and outputs show every size except the context, which is read from the metadata. Graphs of bundle format 2
    have no shape in their metadata, so their context cannot be checked.

    Args:
        session: The opened graph.
        config: The shape that the manifest states.
        name: The file, for error messages.

    Raises:
        SlmxError: Inputs, outputs or metadata belong to another shape.
    """
    inputs = {value.name: value for value in session.get_inputs()}
    outputs = {value.name: value for value in session.get_outputs()}
    for wanted in ("input_ids", "position_ids", "attention_mask"):
        if wanted not in inputs or inputs[wanted].type != INTEGERS:
            raise SlmxError(f"{name}: not a graph that slmx can run (no int64 input {wanted}); export it again")
    found = session.get_modelmeta().custom_metadata_map.get(SHAPE_KEY)
    if found is not None and found != shape_text(config):
        raise SlmxError(
            f"{name}: a graph of {as_plain_text(found[:200])}, not of {shape_text(config)} as the manifest says; "
            "copy the bundle again, or export it again"
        )
    layers = sum(value.startswith(PAST) for value in inputs) / 2
    if layers != config.n_layer:
        raise SlmxError(
            f"{name}: a graph of {layers:g} layers, not {config.n_layer} as the manifest says; "
            "copy the bundle again, or export it again"
        )
    cache: list[str | int] = ["batch_size", config.kv_heads, "length", config.head_dim]
    tensors: list[tuple[str, dict[str, ort.NodeArg], list[str | int]]]
    tensors = [("logits", outputs, ["batch_size", "sequence_length", config.vocab_size])]
    for past, present in zip(*cache_names(config.n_layer), strict=True):
        tensors += [(past, inputs, cache), (present, outputs, cache)]
    for tensor, values, sizes in tensors:
        value = values.get(tensor)
        if value is None or value.type != FLOATS or not _fits(value.shape, sizes):
            has = "missing" if value is None else f"{value.type} {value.shape}"
            raise SlmxError(
                f"{name}: {tensor} is {as_plain_text(has[:200])}, not {FLOATS} {sizes} as the manifest says; "
                "copy the bundle again, or export it again"
            )


def _fits(shape: Sequence[object], sizes: Sequence[str | int]) -> bool:
    """Returns whether a shape has these sizes. A size that is a name may have any value."""
    return len(shape) == len(sizes) and all(
        isinstance(size, str) or size == found for size, found in zip(sizes, shape, strict=True)
    )
