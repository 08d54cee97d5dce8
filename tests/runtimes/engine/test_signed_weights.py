"""int8 weights become signed in memory where that is exact, and the logits stay the same bit by bit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from runtimes.bundle.location import shipped_names
from runtimes.bundle.store import Bundle
from runtimes.engine import cache, exact_products, signed_weights
from runtimes.engine.session import Session
from runtimes.engine.signed_weights import make_weights_signed
from tests import bundles

NAMES = ("nano", "micro", "small")


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor multiplies int8 weights exactly, as far as the code knows."""
    monkeypatch.setattr(signed_weights, "signed_is_exact", lambda: True)


def small(change: Callable[[onnx.GraphProto], object] = lambda graph: None, zero_point: int = 128) -> bytearray:
    """A graph like those of the export: a table that an embedding and a product read, with one scale."""
    numbers = np.random.default_rng(0)
    table = numpy_helper.from_array(numbers.integers(0, 256, (8, 16), np.uint8), "table")
    zero = helper.make_tensor("zero", TensorProto.UINT8, [], [zero_point])
    scale = helper.make_tensor("scale", TensorProto.FLOAT, [], [0.01])
    axes = helper.make_tensor("unused", TensorProto.INT64, [2], [0, 1])
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows8"]),
        helper.make_node("DequantizeLinear", ["rows8", "scale", "zero"], ["rows"]),
        helper.make_node("DynamicQuantizeLinear", ["rows"], ["q", "s", "z"]),
        helper.make_node("Transpose", ["q"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMulInteger", ["turned", "table", "z", "zero"], ["product"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [8])],
        [helper.make_tensor_value_info("product", TensorProto.INT32, [16, 16])],
        [table, zero, scale, axes],
    )
    change(graph)
    return bytearray(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
    )


def signed_by_onnx(model: bytes) -> onnx.ModelProto:
    """The model with every uint8 tensor as int8, made with the `onnx` package."""
    proto = onnx.load_model_from_string(model)
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.UINT8:
            values = numpy_helper.to_array(tensor).astype(np.int16) - 128
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.int8), tensor.name))
    return proto


def assert_same_tensors(model: bytes, expected: onnx.ModelProto) -> None:
    """Both have the same initializers, with their types and values, and the same nodes."""
    found = onnx.load_model_from_string(model)
    assert list(found.graph.node) == list(expected.graph.node)
    assert [tensor.name for tensor in found.graph.initializer] == [tensor.name for tensor in expected.graph.initializer]
    for one, other in zip(found.graph.initializer, expected.graph.initializer, strict=True):
        assert one.data_type == other.data_type, one.name
        assert np.array_equal(numpy_helper.to_array(one), numpy_helper.to_array(other)), one.name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("exact")
def test_every_weight_of_a_shipped_model_becomes_signed_and_nothing_else_changes(name: str) -> None:
    model = Bundle.open(shipped_names()[name]).model_bytes("int8")
    before = bytes(model)
    make_weights_signed(model)
    assert len(model) == len(before)
    assert (
        sum(
            tensor.data_type == TensorProto.INT8
            for tensor in onnx.load_model_from_string(bytes(model)).graph.initializer
        )
        > 30
    )
    assert_same_tensors(bytes(model), signed_by_onnx(before))


@pytest.mark.parametrize("name", NAMES)
def test_signed_weights_give_the_same_logits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exact_products.signed_is_exact():
        pytest.skip("this processor adds products of signed weights in 16 bits")
    bundle = Bundle.open(shipped_names()[name])
    ids = [random.Random(0).randrange(bundle.config.vocab_size) for _ in range(80)]
    signed = Session.open(bundle.model_bytes("int8"), bundle.config)
    monkeypatch.setattr(cache, "make_weights_signed", lambda model: None)
    unsigned = Session.open(bundle.model_bytes("int8"), bundle.config)
    assert np.array_equal(signed.score(ids[:50]), unsigned.score(ids[:50]))
    assert all(np.array_equal(signed.step(token), unsigned.step(token)) for token in ids[50:])


@pytest.mark.usefixtures("exact")
def test_a_session_opens_the_signed_model_and_keeps_no_copy_of_the_file(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(bundles.tiny_bundle(tiny_checkpoint))
    opened: list[bytes] = []
    real = ort.InferenceSession

    def record(model: bytes, *args: object, **options: object) -> ort.InferenceSession:
        opened.append(model)
        return real(model, *args, **options)

    monkeypatch.setattr(ort, "InferenceSession", record)
    model = bundle.model_bytes("int8")
    before = bytes(model)
    session = cache.open_onnx(model, 1)
    assert_same_tensors(opened[0], signed_by_onnx(before))
    assert model == b""
    assert session._model_bytes is None
    session = cache.open_onnx(bundle.model_path("int8"), 1)
    assert opened[1] == opened[0]


def test_weights_stay_unsigned_where_products_saturate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signed_weights, "signed_is_exact", lambda: False)
    model = small()
    before = bytes(model)
    make_weights_signed(model)
    assert model == before


@pytest.mark.parametrize("zero_point", [0, 1, 127, 128, 200, 255])
@pytest.mark.usefixtures("exact")
def test_a_zero_point_of_any_size_becomes_signed(zero_point: int) -> None:
    model = small(zero_point=zero_point)
    before = bytes(model)
    make_weights_signed(model)
    assert len(model) == len(before)
    assert_same_tensors(bytes(model), signed_by_onnx(before))


def _cast(graph: onnx.GraphProto) -> None:
    graph.node.append(helper.make_node("Cast", ["table"], ["float"], to=TensorProto.FLOAT))


def _cast_rows(graph: onnx.GraphProto) -> None:
    graph.node.append(helper.make_node("Cast", ["rows8"], ["float"], to=TensorProto.FLOAT))


def _left(graph: onnx.GraphProto) -> None:
    graph.node.append(helper.make_node("MatMulInteger", ["table", "table"], ["square"]))


def _declared(graph: onnx.GraphProto) -> None:
    graph.value_info.append(helper.make_tensor_value_info("rows8", TensorProto.UINT8, [8, 16]))


def _overridable(graph: onnx.GraphProto) -> None:
    graph.input.append(helper.make_tensor_value_info("table", TensorProto.UINT8, [8, 16]))


def _output(graph: onnx.GraphProto) -> None:
    graph.output.append(helper.make_tensor_value_info("table", TensorProto.UINT8, [8, 16]))


def _subgraph(graph: onnx.GraphProto) -> None:
    inner = helper.make_graph([], "inner", [], [helper.make_tensor_value_info("table", TensorProto.UINT8, [8, 16])])
    graph.node.append(helper.make_node("If", ["condition"], ["chosen"], then_branch=inner, else_branch=inner))


def _external(graph: onnx.GraphProto) -> None:
    graph.initializer[0].data_location = TensorProto.EXTERNAL


def _without_values(graph: onnx.GraphProto) -> None:
    graph.initializer[0].ClearField("raw_data")


def _many_zero_points(graph: onnx.GraphProto) -> None:
    graph.initializer[1].CopyFrom(helper.make_tensor("zero", TensorProto.UINT8, [16], [128] * 16))


@pytest.mark.parametrize(
    "change",
    [
        _cast,
        _cast_rows,
        _left,
        _declared,
        _overridable,
        _output,
        _subgraph,
        _external,
        _without_values,
        _many_zero_points,
    ],
)
@pytest.mark.usefixtures("exact")
def test_a_model_that_uses_uint8_in_another_way_stays(change: Callable[[onnx.GraphProto], object]) -> None:
    model = small(change)
    before = bytes(model)
    make_weights_signed(model)
    assert model == before


@pytest.fixture(scope="module")
def always_exact() -> Iterator[None]:
    """As `exact`, for all examples of a property."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signed_weights, "signed_is_exact", lambda: True)
        yield


@settings(max_examples=300, deadline=None)
@given(st.data())
@pytest.mark.usefixtures("always_exact")
def test_a_damaged_model_raises_nothing_and_keeps_its_length(data: st.DataObject) -> None:
    model = small()
    for _ in range(data.draw(st.integers(1, 3))):
        model[data.draw(st.integers(0, len(model) - 1))] = data.draw(st.integers(0, 255))
    model += b"MatMulInteger"
    del model[data.draw(st.integers(0, len(model) - 20)) : -13]
    length = len(model)
    make_weights_signed(model)
    assert len(model) == length


def test_the_probe_is_a_valid_model_and_finds_saturation() -> None:
    proto = onnx.load_model_from_string(exact_products.probe())
    onnx.checker.check_model(proto, full_check=True)
    (weights,) = proto.graph.initializer
    assert (numpy_helper.to_array(weights) == 127).all()
    assert weights.data_type == TensorProto.INT8
    # The sum of two such products is above the largest number of 16 bits, where a processor without VNNI stops.
    assert 2 * exact_products.LARGEST * exact_products.LARGEST_SIGNED > 2**15 - 1


@pytest.mark.parametrize("wrong", [True, False])
def test_one_wrong_product_is_enough(wrong: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Session:
        def __init__(self, *args: object, **options: object) -> None: ...

        def run(self, outputs: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            product = np.full((len(inputs["a"]), exact_products.WIDTH), 255 * 127 * exact_products.DEPTH, np.int32)
            if wrong and len(product) > 1:
                product[-1, -1] = 2**15 - 1
            return [product]

    monkeypatch.setattr(ort, "InferenceSession", Session)
    assert exact_products.signed_is_exact.__wrapped__() is not wrong
