"""An ONNX model that names weights outside its file or operators of other packages is not given to onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.formats.mobile import export_mobile
from runtimes.bundle.store import Bundle
from runtimes.engine import onnx_check
from runtimes.engine.cache import open_onnx
from slm.console.errors import SlmxError
from tests import bundles

SECRET = Path("/etc/passwd")
WEIGHTS = "its weights are in another file, which no hash covers"
OPERATOR = "an operator of 'evil.ops', which is another package"


def tensor() -> TensorProto:
    """A tensor whose numbers are the bytes of a file of the system."""
    found = TensorProto(name="t", data_type=TensorProto.UINT8, dims=[4], data_location=TensorProto.EXTERNAL)
    found.external_data.add(key="location", value=f"../../../../../..{SECRET}")
    return found


def node() -> NodeProto:
    """An operator of a library that is not onnxruntime's."""
    return helper.make_node("Run", ["x"], ["y"], domain="evil.ops")


def sparse() -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(tensor(), numpy_helper.from_array(np.zeros(1, np.int64), "i"), [4])


def inner(nodes: list[NodeProto], tensors: list[TensorProto]) -> GraphProto:
    return helper.make_graph(nodes, "inner", [], [], tensors)


def branch(graph: GraphProto) -> NodeProto:
    """An operator with a graph inside."""
    return helper.make_node("If", ["c"], ["y"], then_branch=graph, else_branch=graph)


def function(*nodes: NodeProto) -> onnx.FunctionProto:
    return helper.make_function("com.microsoft", "F", ["x"], ["y"], list(nodes), [helper.make_opsetid("", 20)])


def with_attribute(**fields: object) -> NodeProto:
    found = NodeProto(op_type="Constant", output=["y"])
    found.attribute.append(AttributeProto(name="value", **fields))  # type: ignore[arg-type]
    return found


def split(parts: int) -> NodeProto:
    return helper.make_node("Split", ["x"], ["y", "z"], num_outputs=parts)


def training(model: ModelProto, graph: GraphProto) -> None:
    model.training_info.add().algorithm.CopyFrom(graph)


ATTACKS: dict[str, tuple[str, Callable[[ModelProto], object]]] = {
    "weights elsewhere": (WEIGHTS, lambda m: m.graph.initializer.append(tensor())),
    "weights elsewhere that are not marked": (
        WEIGHTS,
        lambda m: m.graph.initializer.add().external_data.add(key="location", value="x"),
    ),
    "sparse weights elsewhere": (WEIGHTS, lambda m: m.graph.sparse_initializer.append(sparse())),
    "a constant elsewhere": (WEIGHTS, lambda m: m.graph.node.append(with_attribute(t=tensor()))),
    "constants elsewhere": (WEIGHTS, lambda m: m.graph.node.append(with_attribute(tensors=[tensor()]))),
    "a sparse constant elsewhere": (WEIGHTS, lambda m: m.graph.node.append(with_attribute(sparse_tensor=sparse()))),
    "in a subgraph": (WEIGHTS, lambda m: m.graph.node.append(branch(inner([], [tensor()])))),
    "in a subgraph of a subgraph": (
        WEIGHTS,
        lambda m: m.graph.node.append(branch(inner([branch(inner([], [tensor()]))], []))),
    ),
    "in a list of graphs": (WEIGHTS, lambda m: m.graph.node.append(with_attribute(graphs=[inner([], [tensor()])]))),
    "in a function": (WEIGHTS, lambda m: m.functions.append(function(with_attribute(t=tensor())))),
    "in a default of a function": (
        WEIGHTS,
        lambda m: m.functions.add().attribute_proto.append(AttributeProto(name="a", t=tensor())),
    ),
    "in a training part": (WEIGHTS, lambda m: training(m, inner([], [tensor()]))),
    "an operator of a library": (OPERATOR, lambda m: m.graph.node.append(node())),
    "an operator in a subgraph": (OPERATOR, lambda m: m.graph.node.append(branch(inner([node()], [])))),
    "an operator in a function": (OPERATOR, lambda m: m.functions.append(function(node()))),
    "an operator in a subgraph of a function": (
        OPERATOR,
        lambda m: m.functions.append(function(branch(inner([node()], [])))),
    ),
    "fewer parts than outputs": (
        "an operator with 2 outputs that makes 1",
        lambda m: m.graph.node.append(split(1)),
    ),
    "very many parts in a subgraph": (
        "an operator with 2 outputs that makes 2147483648",
        lambda m: m.graph.node.append(branch(inner([split(2**31)], []))),
    ),
    "an operator in a training part": (OPERATOR, lambda m: training(m, inner([node()], []))),
}


def whole() -> ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture
def unopened(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime must not see a model."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("onnxruntime was given the model")

    monkeypatch.setattr(ort, "InferenceSession", refuse)


def refusal(content: bytes) -> str:
    with pytest.raises(SlmxError) as caught:
        open_onnx(content, 1, "model.onnx")
    (line,) = str(caught.value).splitlines()
    return line


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_graph_that_reads_elsewhere_or_needs_a_library_is_refused(attack: str) -> None:
    reason, change = ATTACKS[attack]
    model = whole()
    change(model)
    expected = f"model.onnx: not a model that slmx opens ({reason}); copy it again, or export it again"
    assert refusal(model.SerializeToString()) == expected


@pytest.mark.usefixtures("unopened")
def test_a_second_graph_is_not_overlooked() -> None:
    """Protobuf joins two messages where one is expected."""
    other = ModelProto()
    other.graph.initializer.append(tensor())
    assert WEIGHTS in refusal(whole().SerializeToString() + other.SerializeToString())


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(
            b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "longer than its message", id="a size of 2^64 - 1"
        ),
        pytest.param(b"\x3a" + b"\x80" * 20, "more than 64 bits", id="a size without end"),
        pytest.param(b"\xba\x80\x80\x80\x10\x00", "unknown kind", id="a number that some readers take for another"),
        pytest.param(b"\x3b", "unknown kind", id="a group"),
        pytest.param(b"\x3a\x05ab", "longer than its message", id="cut off"),
        pytest.param(b"\x08", "it is cut off", id="cut off in a number"),
    ],
)
def test_bytes_that_readers_of_protobuf_may_take_in_two_ways_are_refused(content: bytes, reason: str) -> None:
    assert reason in refusal(content)


@pytest.mark.usefixtures("unopened")
def test_graphs_in_graphs_take_no_stack_and_many_parts_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    deep = inner([], [tensor()]).SerializeToString()
    for _ in range(300):
        # An attribute of a node of the next graph: fields 6, 5 and 1.
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            deep = tag + length(deep) + deep
    assert WEIGHTS in refusal(b"\x3a" + length(deep) + deep)
    monkeypatch.setattr(onnx_check, "MOST_FIELDS", 1000)
    nodes = b"\x0a\x00" * 1000
    assert "more than 1,000 parts" in refusal(b"\x3a" + length(nodes) + nodes)


def length(content: bytes) -> bytes:
    number, encoded = len(content), bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def test_weights_that_an_ort_file_names_are_not_read(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an .ort file onnxruntime gets only bytes, and the folder of its weights is none."""
    file = tmp_path / "model.ort"
    export_mobile(Bundle.open(bundles.tiny_bundle(tiny_checkpoint)).model_path("fp32"), file)
    seen: list[ort.SessionOptions] = []
    opened = ort.InferenceSession

    def watch(content: bytes, options: ort.SessionOptions, **more: object) -> ort.InferenceSession:
        seen.append(options)
        return opened(content, options, **more)

    monkeypatch.setattr(ort, "InferenceSession", watch)
    open_onnx(file, 1)
    key = "session.model_external_initializers_file_folder_path"
    assert not Path(seen[-1].get_session_config_entry(key)).exists()
