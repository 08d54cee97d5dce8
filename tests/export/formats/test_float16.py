"""Storing weights in 16 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from export.formats.float16 import store_float16
from export.formats.fused import export_onnx
from export.formats.graph import UNTIED_TABLE, matrix_names
from slm.console.errors import SlmxError
from slm.model import GPT
from tests import bundles
from tests.shapes import ARCHITECTURES


def llama_graph(folder: Path) -> tuple[GPT, Path]:
    """An untied Llama and its graph, which holds tables of rotary positions."""
    model = bundles.random_model(ARCHITECTURES["llama with grouped heads"])
    export_onnx(model, folder / "llama.onnx")
    return model, folder / "llama.onnx"


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_matrices_and_tables_are_rounded_to_float16_and_the_rest_stays(architecture: str, tmp_path: Path) -> None:
    model, source = bundles.small_graph() if architecture == "gpt2" else llama_graph(tmp_path)
    store_float16(source, tmp_path / "é %#.onnx")
    before, after = bundles.initializers(source), bundles.initializers(tmp_path / "é %#.onnx")
    # A rotary position that is rounded would turn late channels by a wrong angle.
    stored = {*matrix_names(model.config), "wpe.weight" if architecture == "gpt2" else UNTIED_TABLE}
    assert {name for name, tensor in after.items() if tensor.data_type == TensorProto.FLOAT16} == {
        f"{name}.half" for name in stored
    }
    for name in stored:
        rounded, exact = (numpy_helper.to_array(tensor) for tensor in (after[f"{name}.half"], before[name]))
        np.testing.assert_allclose(rounded, exact, rtol=2**-11, atol=2**-25)
    for name in set(before) - stored:
        np.testing.assert_array_equal(numpy_helper.to_array(after[name]), numpy_helper.to_array(before[name]))


@pytest.mark.parametrize("value", [1e5, -1e5, float("nan")])
def test_a_weight_that_float16_cannot_hold_is_named(value: float, tmp_path: Path) -> None:
    graph = onnx.load(bundles.small_graph()[1])
    tensor = next(tensor for tensor in graph.graph.initializer if tensor.name == "h.1.c_fc.weight")
    values = numpy_helper.to_array(tensor).copy()
    values[0, 0] = value
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save_model(graph, tmp_path / "source.onnx")
    with pytest.raises(SlmxError, match=r"^h\.1\.c_fc\.weight holds values beyond 65,504.*without --fp16$"):
        store_float16(tmp_path / "source.onnx", tmp_path / "target.onnx")
    assert not (tmp_path / "target.onnx").exists()
