"""A graph with another shape than in the manifest is refused when it is opened."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from runtimes.bundle.shape import SHAPE_KEY, shape_text
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from runtimes.engine.session import Session
from slm.console.errors import SlmxError
from slm.presets import GPTConfig
from tests import bundles
from tests.bundles import Slmx


@pytest.fixture
def bundle(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return bundles.copy_of(bundles.tiny_bundle_of_all(tiny_checkpoint), tmp_path / "b é %#")


def without_metadata(bundle: Path) -> None:
    """Remove the shape from the metadata of every ONNX file, as in bundles of format 2."""
    for variant in VARIANTS.values():
        if variant.is_onnx:
            model = onnx.load(bundle / variant.file)
            kept = [entry for entry in model.metadata_props if entry.key != SHAPE_KEY]
            del model.metadata_props[:]
            model.metadata_props.extend(kept)
            onnx.save_model(model, bundle / variant.file)
            bundles.list_again(bundle, variant.file)


def restate(bundle: Path, **sizes: int) -> None:
    """Writes other sizes into the manifest."""
    shape = json.loads((bundle / "manifest.json").read_text("utf-8"))["shape"]
    bundles.edit_manifest(bundle, shape=shape | sizes)


@pytest.mark.slow
def test_every_onnx_file_holds_its_shape(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    for name in opened.variants:
        session = Session.open(opened.model_path(name), opened.config)
        assert session.config == opened.config
        other = replace(opened.config, block_size=opened.config.block_size - 1)
        with pytest.raises(SlmxError, match="as the manifest says"):
            Session.open(opened.model_path(name), other)
    stored = onnx.load(bundle / VARIANTS["int8"].file).metadata_props
    assert {entry.key: entry.value for entry in stored}[SHAPE_KEY] == shape_text(opened.config)


@pytest.mark.parametrize(
    "sizes",
    [{"n_layer": 3}, {"n_layer": 1}, {"block_size": 63}, {"block_size": 65}, {"block_size": 131_072}, {"n_head": 4},
     {"n_embd": 64}, {"n_embd": 64, "n_head": 4}, {"vocab_size": 399}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("metadata", [True, False])
def test_each_size_that_is_another_one_is_found(
    slmx: Slmx, bundle: Path, sizes: dict[str, int], metadata: bool
) -> None:
    if not metadata:
        without_metadata(bundle)
    restate(bundle, **sizes)
    opened = Bundle.open(bundle)
    for name in ("fp32", "int8", "q8", "int4", "fp16", "portable"):
        path = opened.model_path(name)
        if not metadata and list(sizes) == ["block_size"]:
            Session.open(path, opened.config)  # inputs and outputs do not show the context
            continue
        with pytest.raises(SlmxError) as caught:
            Session.open(path, opened.config)
        line = str(caught.value)
        assert line.startswith(f"{path}: ")
        assert "\n" not in line
        assert "as the manifest says; copy the bundle again, or export it again" in line


def test_a_graph_of_something_else_is_refused(tmp_path: Path, bundle: Path) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([node], "other", [value], [out])
    path = tmp_path / "other é.onnx"
    onnx.save_model(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), path
    )
    with pytest.raises(SlmxError, match="not a graph that slmx can run"):
        Session.open(path, Bundle.open(bundle).config)


@pytest.mark.parametrize("number", [np.float32, np.float16, np.float64])
def test_a_graph_of_other_numbers_is_refused(tmp_path: Path, number: type[np.floating[Any]]) -> None:
    """A session binds float32 buffers, so every cache and the logits must be float32."""
    config = GPTConfig(block_size=8, vocab_size=5, n_layer=1, n_head=2, n_embd=16)
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(number))
    cache: list[str | int | None] = ["b", config.n_head, "p", config.head_dim]
    names = ("input_ids", "position_ids", "attention_mask")
    value = onnx.helper.make_tensor_value_info
    inputs = [value(name, onnx.TensorProto.INT64, ["b", "s"]) for name in names]
    inputs += [value(f"past_key_values.0.{part}", kind, cache) for part in ("key", "value")]
    outputs = [value("logits", kind, ["b", "s", config.vocab_size])]
    outputs += [value(f"present.0.{part}", kind, cache) for part in ("key", "value")]
    nodes = [onnx.helper.make_node("Gather", ["table", "input_ids"], ["logits"])]
    for part in ("key", "value"):
        nodes.append(onnx.helper.make_node("Identity", [f"past_key_values.0.{part}"], [f"present.0.{part}"]))
    table = onnx.numpy_helper.from_array(np.zeros((config.vocab_size, config.vocab_size), number), "table")
    graph = onnx.helper.make_graph(nodes, "numbers", inputs, outputs, [table])
    path = tmp_path / "numbers é.onnx"
    opset = onnx.helper.make_opsetid("", 20)
    onnx.save_model(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    if number is np.float32:
        Session.open(path, config)
    else:
        with pytest.raises(SlmxError, match=r"logits is tensor\((float16|double)\) .* not tensor\(float\)"):
            Session.open(path, config)
