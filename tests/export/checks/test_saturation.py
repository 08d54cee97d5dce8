"""The weights of int8 at the ends of their range are counted, and those that the range cuts off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.checks.saturation import count_saturation
from export.formats.fused import export_onnx
from export.formats.graph import matrix_names
from export.formats.quantize import quantize_int8
from export.formats.recipes import get_recipe
from runtimes.bundle.store import Bundle
from tests import bundles
from tests.shapes import ARCHITECTURES

pytestmark = pytest.mark.slow


def quantized(source: Path, folder: Path, recipe: str = "u8-tensor") -> Path:
    quantize_int8(source, folder / "int8.onnx", get_recipe(recipe))
    return folder / "int8.onnx"


def with_weight(source: Path, target: Path, name: str, factor: float) -> float:
    """Writes a graph whose largest weight of a matrix is multiplied; returns that weight before."""
    model = onnx.load(source)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor).copy()
    place = np.unravel_index(np.abs(values).argmax(), values.shape)
    before = float(values[place])
    values[place] *= factor
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    onnx.save_model(model, target)
    return before


@pytest.mark.parametrize("recipe", ["u8-tensor", "u8-channel"])
def test_a_range_that_fits_cuts_nothing(recipe: str, tmp_path: Path) -> None:
    model, source = bundles.small_graph()
    found = count_saturation(source, quantized(source, tmp_path, recipe))
    matrices = matrix_names(model.config)
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in onnx.load(source).graph.initializer}
    assert found.weights == sum(sizes[name] for name in matrices)
    assert found.clipped == 0
    assert len(matrices) <= found.at_ends < found.weights / 10


def test_a_weight_beyond_the_range_of_its_numbers_is_counted(tmp_path: Path) -> None:
    source = bundles.small_graph()[1]
    path = quantized(source, tmp_path)
    before = count_saturation(source, path)
    with_weight(source, tmp_path / "larger.onnx", "h.0.c_fc.weight", 3.0)
    after = count_saturation(tmp_path / "larger.onnx", path)
    assert (after.weights, after.at_ends) == (before.weights, before.at_ends)
    assert after.clipped == 1


def test_an_embedding_of_its_own_counts_too(tmp_path: Path) -> None:
    model = bundles.random_model(ARCHITECTURES["llama with grouped heads"])
    export_onnx(model, tmp_path / "llama.onnx")
    found = count_saturation(tmp_path / "llama.onnx", quantized(tmp_path / "llama.onnx", tmp_path))
    matrices = [tensor.numel() for tensor in model.state_dict().values() if tensor.ndim == 2]
    assert found.weights == sum(matrices)
    assert found.clipped == 0


def test_the_manifest_tells_it(tiny_checkpoint: Path) -> None:
    bundle = Bundle.open(bundles.tiny_bundle(tiny_checkpoint))
    stored = bundle.manifest.variants["int8"].figures.saturation
    assert stored == count_saturation(bundle.model_path("fp32"), bundle.model_path("int8"))
    assert stored is not None
    assert stored.at_ends > 0
    assert bundle.manifest.variants["fp32"].figures.saturation is None
