"""Describes the decoder as one ONNX graph with a KV cache, for both prefill and decode.

`build_decoder` walks through the model once. `Operators` are the parts that have several forms: onnxruntime's contrib
operators (`export.formats.fused`) and ONNX's standard operators (`export.formats.portable`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from runtimes.bundle.shape import SHAPE_KEY, cache_names, shape_text
from runtimes.engine.cache import LOGITS_TO_KEEP
from slm.console.errors import SlmxError
from slm.model import GPT
from slm.presets import GPTConfig

IR_VERSION = 10
TOKEN_TABLE = "wte.weight_t"  # [embd, vocab], so that a tied head needs no transposition; the embedding gathers columns
UNTIED_TABLE = "wte.weight"
UNTIED_HEAD = "lm_head.weight"
# What follows the name of a matrix in the names of its quantized tensors. onnxruntime's quantizer adds these endings.
STORED, SCALE, ZERO_POINT = "_quantized", "_scale", "_zero_point"
ROTATION = ("rope.cos", "rope.sin")  # tables of rotary positions, float32 [context, head_dim / 2]
# The matrices of a block: their names in a graph and in the model.
MATRICES = {"c_attn": "attn.c_attn", "attn_proj": "attn.c_proj", "c_fc": "mlp.c_fc", "mlp_proj": "mlp.c_proj"}

Attribute = int | float | str | Sequence[int]
Array = npt.NDArray[np.generic]


def head_name(config: GPTConfig) -> str:
    """Returns the name of the matrix of the output head."""
    return TOKEN_TABLE if config.tied else UNTIED_HEAD


def matrix_names(config: GPTConfig) -> list[str]:
    """Returns the names of the matrices that can be quantized, in the order of the graph. The head is last."""
    return [*(f"h.{layer}.{part}.weight" for layer in range(config.n_layer) for part in MATRICES), head_name(config)]


class Nodes:
    """Collects the nodes and the stored tensors of a graph. Values are referred to by their names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, Array] = {}
        self.values: list[onnx.ValueInfoProto] = []

    def add(self, name: str, operator: str, *inputs: str, domain: str = "", **attributes: Attribute) -> str:
        """Adds a node with one output, which gets the node's name; returns this name. An input "" is left out."""
        return self.add_many([name], operator, *inputs, domain=domain, **attributes)[0]

    def add_many(
        self, names: Sequence[str], operator: str, *inputs: str, domain: str = "", **attributes: Attribute
    ) -> Sequence[str]:
        """Adds a node with several outputs; returns their names. An output "" is left out."""
        node = helper.make_node(operator, inputs, names, names[0], domain=domain)
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        self.nodes.append(node)
        return names

    def describe(self, name: str, *shape: str | int) -> None:
        """Records that a value is float32 and has a shape, which quantizers need and contrib operators hide."""
        self.values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def store(self, name: str, values: Array | Sequence[int]) -> str:
        """Stores a tensor, once for each name. A list of whole numbers becomes int64. Returns the name."""
        self.tensors[name] = values if isinstance(values, np.ndarray) else np.array(values, np.int64)
        return name


class Operators(ABC):
    """The parts of a decoder that a graph can compute with different operators.

    Args:
        nodes: Where the nodes are added.
        config: The shape of the model.
    """

    opset: int

    def __init__(self, nodes: Nodes, config: GPTConfig) -> None:
        self.nodes, self.config = nodes, config

    @abstractmethod
    def add_norm(self, name: str, x: str, skip: str, bias: str, norm: str) -> tuple[str, str]:
        """Adds `skip` and a bias to the residual stream `x`, and normalizes the sum.

        Args:
            name: The name of the results.
            x: float [batch, sequence, embd].
            skip: float [batch, sequence, embd], or "" for none.
            bias: float [embd], or "" for none.
            norm: The name of the norm, whose stored tensors are `norm.weight` and `norm.bias`.

        Returns:
            The normalized sum and the sum.
        """

    @abstractmethod
    def attention(self, layer: int, qkv: str) -> str:
        """Runs causal attention and writes the present keys and values of a layer.

        Args:
            layer: The layer.
            qkv: float [batch, sequence, (heads + 2 kv_heads) * head_dim].

        Returns:
            float [batch, sequence, heads * head_dim].
        """

    def activation(self, name: str, x: str, bias: str) -> str:
        """Adds a bias ("" for none) to x [batch, sequence, channels] and applies the activation function."""
        x = self.nodes.add(f"{name}.biased", "Add", x, bias) if bias else x
        match self.config.activation:
            case "silu":
                return self.nodes.add(name, "Mul", x, self.nodes.add(f"{name}.sigmoid", "Sigmoid", x))
            case "relu":
                return self.nodes.add(name, "Relu", x)
            case gelu:
                return self.nodes.add(name, "Gelu", x, approximate="tanh" if gelu == "gelu_tanh" else "none")

    def norm(self, name: str, x: str, norm: str) -> str:
        """Normalizes x [batch, sequence, embd] with standard operators."""
        weight, eps = f"{norm}.weight", self.config.norm_eps
        if self.config.norm == "layernorm":
            bias = [f"{norm}.bias"] if self.config.bias else []
            return self.nodes.add(name, "LayerNormalization", x, weight, *bias, axis=-1, epsilon=eps)
        add, store = self.nodes.add, self.nodes.store
        square = add(f"{name}.square", "Pow", x, store("two", np.array(2, np.float32)))
        mean = add(f"{name}.mean", "ReduceMean", square, store("last_axis", [-1]), keepdims=1)
        root = add(f"{name}.root", "Sqrt", add(f"{name}.shifted", "Add", mean, store("eps", np.array(eps, np.float32))))
        return add(name, "Mul", add(f"{name}.scaled", "Div", x, root), weight)


def build_decoder(model: GPT, operators: type[Operators]) -> onnx.ModelProto:
    """Makes the graph of a model.

    Its inputs are input_ids and position_ids int64 [batch, sequence], attention_mask int64 [batch, total] with 1 for
    each position that a row has, the past keys and values float [batch, kv_heads, past, head_dim], and
    num_logits_to_keep int64 [1], which is optional. Its outputs are logits float [batch, sequence, vocab], and the
    present keys and values.

    Args:
        model: The model, on the CPU.
        operators: The operators to use.

    Returns:
        The graph, with the weights.
    """
    config, nodes = model.config, Nodes()
    state = model.state_dict()
    for name, (parameter, transposed) in weight_names(config).items():
        tensor = state[parameter].detach()
        nodes.store(name, (tensor.t() if transposed else tensor).contiguous().numpy())
    parts = operators(nodes, config)

    def linear(name: str, x: str, layer: int, part: str) -> str:
        weight = f"h.{layer}.{part}.weight"
        nodes.describe(name, "batch_size", "sequence_length", nodes.tensors[weight].shape[1])
        return nodes.add(name, "MatMul", x, weight)

    def bias(layer: int, part: str) -> str:
        return f"h.{layer}.{part}.bias" if config.bias else ""

    norms = [*(f"h.{layer}.ln_1" for layer in range(config.n_layer)), "ln_f"]
    positions = "" if config.rope_theta else nodes.add("positions", "Gather", "wpe.weight", "position_ids")
    normed, x = parts.add_norm("embedded", _embed(nodes, config), positions, "", norms[0])
    for layer, next_norm in enumerate(norms[1:]):
        at = f"h.{layer}"
        qkv = linear(f"{at}.qkv", normed, layer, "c_attn")
        if config.bias:
            qkv = nodes.add(f"{at}.qkv_biased", "Add", qkv, bias(layer, "c_attn"))
        attended = linear(f"{at}.attn_out", parts.attention(layer, qkv), layer, "attn_proj")
        normed, x = parts.add_norm(f"{at}.attended", x, attended, bias(layer, "attn_proj"), f"{at}.ln_2")
        hidden = linear(f"{at}.hidden", normed, layer, "c_fc")
        if config.gated:
            hidden = nodes.add(f"{at}.hidden_biased", "Add", hidden, bias(layer, "c_fc")) if config.bias else hidden
            gate, up = nodes.add_many([f"{at}.gate", f"{at}.up"], "Split", hidden, axis=-1, num_outputs=2)
            hidden = nodes.add(f"{at}.gated", "Mul", parts.activation(f"{at}.activated", gate, ""), up)
        else:
            hidden = parts.activation(f"{at}.activated", hidden, bias(layer, "c_fc"))
        out = linear(f"{at}.mlp_out", hidden, layer, "mlp_proj")
        normed, x = parts.add_norm(f"{at}.out", x, out, bias(layer, "mlp_proj"), next_norm)
    end, axis = nodes.store("end", [np.iinfo(np.int64).max]), nodes.store("sequence_axis", [1])
    start = nodes.add("first_kept", "Neg", LOGITS_TO_KEEP)
    nodes.add("logits", "MatMul", nodes.add("kept", "Slice", normed, start, end, axis), head_name(config))
    return _model(nodes, config, operators.opset)


def _embed(nodes: Nodes, config: GPTConfig) -> str:
    if not config.tied:
        return nodes.add("tokens", "Gather", UNTIED_TABLE, "input_ids")
    columns = nodes.add("token_columns", "Gather", TOKEN_TABLE, "input_ids", axis=1)
    return nodes.add("tokens", "Transpose", columns, perm=[1, 2, 0])


def _model(nodes: Nodes, config: GPTConfig, opset: int) -> onnx.ModelProto:
    past_names, present_names = cache_names(config.n_layer)

    def value(name: str, kind: int, *shape: str | int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    def cache(name: str, length: str) -> onnx.ValueInfoProto:
        return value(name, TensorProto.FLOAT, "batch_size", config.kv_heads, length, config.head_dim)

    inputs = [
        value("input_ids", TensorProto.INT64, "batch_size", "sequence_length"),
        value("attention_mask", TensorProto.INT64, "batch_size", "total_sequence_length"),
        value("position_ids", TensorProto.INT64, "batch_size", "sequence_length"),
        *(cache(name, "past_sequence_length") for name in past_names),
        value(LOGITS_TO_KEEP, TensorProto.INT64, 1),
    ]
    outputs = [
        value("logits", TensorProto.FLOAT, "batch_size", "sequence_length", config.vocab_size),
        *(cache(name, "total_sequence_length") for name in present_names),
    ]
    # An input with a stored value is optional. A runtime that does not know it gets all logits.
    nodes.store(LOGITS_TO_KEEP, [0])
    _drop_unused_outputs(nodes.nodes, {output.name for output in outputs})
    domains = dict.fromkeys(node.domain for node in nodes.nodes)
    stored = [numpy_helper.from_array(array, name) for name, array in nodes.tensors.items()]
    model = helper.make_model(
        helper.make_graph(nodes.nodes, "main_graph", inputs, outputs, stored, value_info=nodes.values),
        opset_imports=[helper.make_opsetid(domain, 1 if domain else opset) for domain in domains],
        ir_version=IR_VERSION,
        producer_name="slmx",
    )
    model.metadata_props.add(key=SHAPE_KEY, value=shape_text(config))
    return model


def _drop_unused_outputs(nodes: list[onnx.NodeProto], outputs: set[str]) -> None:
    """Removes the names of outputs that nothing reads, so that onnxruntime does not allocate them."""
    read = {name for node in nodes for name in node.input} | outputs
    for node in nodes:
        kept = [name if name in read else "" for name in node.output]
        while not kept[-1]:
            kept.pop()
        node.output[:] = kept


def weight_names(config: GPTConfig) -> dict[str, tuple[str, bool]]:
    """Returns the stored weights of a graph: the model's name of each, and whether the graph stores it transposed.

    MatMul needs a matrix as [in, out].
    """
    with torch.device("meta"):
        parameters = GPT(config).state_dict()
    shorter = {long: short for short, long in MATRICES.items()}
    names: dict[str, tuple[str, bool]] = {}
    for parameter in parameters:
        if parameter == "wte.weight":
            names[TOKEN_TABLE if config.tied else UNTIED_TABLE] = (parameter, config.tied)
        elif parameter == UNTIED_HEAD:
            names[UNTIED_HEAD] = (parameter, True)
        else:
            block, _, rest = parameter.rpartition(".")
            layer, short = ".".join(block.split(".")[:2]), shorter.get(".".join(block.split(".")[2:]))
            names[f"{layer}.{short}.{rest}" if short else parameter] = (parameter, bool(short) and rest == "weight")
    return names


def replace_nodes(graph: onnx.GraphProto, old: Sequence[onnx.NodeProto], new: Sequence[onnx.NodeProto]) -> None:
    """Removes nodes of a graph and puts others in the place of the first of them."""
    place = next(index for index, node in enumerate(graph.node) if node in old)
    for node in old:
        graph.node.remove(node)
    for offset, node in enumerate(new):
        graph.node.insert(place + offset, node)


def load_graph(file: Path | bytes) -> onnx.ModelProto:
    """Reads an ONNX file, given by its path or its content."""
    return onnx.load_model_from_string(file) if isinstance(file, bytes) else onnx.load(file)


def read_weights(file: Path | bytes, config: GPTConfig) -> GPT:
    """Reads a GPT from a float32 graph that `build_decoder` made.

    Args:
        file: The ONNX file, or its content.
        config: The model's shape.

    Raises:
        SlmxError: The graph lacks a weight of a model of this shape.
    """
    stored = {tensor.name: tensor for tensor in load_graph(file).graph.initializer}
    names = weight_names(config)
    missing = sorted(set(names) - set(stored))
    if missing:
        where = "fp32" if isinstance(file, bytes) else file
        raise SlmxError(f"{where}: holds no {missing[0]} to compare with; name the model with --checkpoint DIR")
    state: dict[str, torch.Tensor] = {}
    for name, (parameter, transposed) in names.items():
        tensor = torch.from_numpy(numpy_helper.to_array(stored[name]).copy())
        state[parameter] = tensor.t() if transposed else tensor
    model = GPT(config)
    model.load_state_dict(state)
    return model.eval()
