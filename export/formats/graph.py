"""Writes a model as ONNX: one graph with a KV cache, for both prefill and decode.

The trained GPT is rewritten as a flat module that calls onnxruntime's contrib operators as symbolic functions, and
`torch.onnx.export` makes the file from it. GroupQueryAttention appends to the KV cache, in place if past and present
share a buffer. SkipLayerNormalization adds bias and residual, and FastGelu adds its bias. The operators are defined in
docs/ContribOperators.md of onnxruntime.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.onnx.ops import symbolic, symbolic_multi_out

from export.formats.suppress_output import suppress_output
from runtimes.bundle.shape import SHAPE_KEY, shape_text
from runtimes.engine.cache import LOGITS_TO_KEEP, cache_names
from slm.errors import SlmxError
from slm.model import GPT, Block
from slm.presets import GPTConfig

OPSET = 20
IR_VERSION = 10
CONTRIB = "com.microsoft"
TOKEN_TABLE = "wte.weight_t"


def matrix_names(n_layer: int) -> list[str]:
    """Returns the names of the matrices that can be quantized, in the order of the graph. The token table is last."""
    parts = ("c_attn", "attn_proj", "c_fc", "mlp_proj")
    return [*(f"h.{layer}.{part}.weight" for layer in range(n_layer) for part in parts), TOKEN_TABLE]


Attribute = int | float | str | bool | Sequence[int] | Sequence[float] | Sequence[str] | Sequence[bool]


class FlatLinear(nn.Module):
    """A linear layer whose weight is stored as [in, out], as MatMul needs it. The caller adds the bias."""

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        assert isinstance(linear, nn.Linear)
        self.weight = nn.Parameter(linear.weight.detach().t().contiguous())
        self.bias = nn.Parameter(linear.bias.detach())


class FlatBlock(nn.Module):
    """The layers of a block without nesting."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.ln_1 = block.ln_1
        self.c_attn = FlatLinear(block.attn.c_attn)
        self.attn_proj = FlatLinear(block.attn.c_proj)
        self.ln_2 = block.ln_2
        self.c_fc = FlatLinear(block.mlp.c_fc)
        self.mlp_proj = FlatLinear(block.mlp.c_proj)


class FlatGPT(nn.Module):
    """The GPT in onnxruntime's operators, with the same weights and logits. The cache is an argument and a result."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.config = model.config
        # [embd, vocab], so that the head needs no transposition. The embedding gathers columns.
        self.wte = nn.Module()
        self.wte.weight_t = nn.Parameter(model.wte.weight.detach().t().contiguous())
        self.wpe = model.wpe
        self.h = nn.ModuleList(FlatBlock(block) for block in model.h if isinstance(block, Block))
        self.ln_f = model.ln_f

    @property
    def blocks(self) -> list[FlatBlock]:
        """The blocks in order."""
        return [block for block in self.h if isinstance(block, FlatBlock)]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        past: Sequence[Tensor],
        num_logits_to_keep: Tensor,
    ) -> tuple[Tensor, ...]:
        """Runs new ids after a past.

        Args:
            input_ids: int64 [batch, sequence].
            attention_mask: int64 [batch, total], 1 for each position that a row has. Rows may differ in length if they
                are padded on the right.
            position_ids: int64 [batch, sequence].
            past: Keys and values [batch, heads, past, head_dim], the key of a layer before its value.
            num_logits_to_keep: int64 [1], the number of last positions that get logits; 0 for all.

        Returns:
            Logits [batch, sequence, vocab], then the present keys and values [batch, heads, total, head_dim].
        """
        seqlens_k = (attention_mask.sum(dim=1) - 1).to(torch.int32)
        total = symbolic("Shape", (attention_mask,), {"start": 1, "end": 2}, dtype=torch.int64, shape=(1,)).to(
            torch.int32
        )
        table = self.wte.weight_t
        assert isinstance(table, Tensor)
        shape = (*input_ids.shape, self.config.n_embd)
        token = symbolic("Gather", (table, input_ids), {"axis": 1}, dtype=table.dtype, shape=(shape[2], *shape[:2]))
        position = self.wpe(position_ids)
        blocks = self.blocks
        norms = [*(block.ln_1 for block in blocks), self.ln_f]
        normed, x = _skip_norm(token.permute(1, 2, 0), position, None, norms[0], keep_sum=True)
        present: list[Tensor] = []
        for layer, (block, next_norm) in enumerate(zip(blocks, norms[1:], strict=True)):
            qkv = normed @ block.c_attn.weight + block.c_attn.bias
            attended, key, value = self._attention(
                qkv, past[2 * layer], past[2 * layer + 1], seqlens_k, total, attention_mask
            )
            present += [key, value]
            projected = attended @ block.attn_proj.weight
            normed, x = _skip_norm(x, projected, block.attn_proj.bias, block.ln_2, keep_sum=True)
            hidden = normed @ block.c_fc.weight
            inputs = (hidden, block.c_fc.bias)
            hidden = symbolic(f"{CONTRIB}::FastGelu", inputs, dtype=hidden.dtype, shape=hidden.shape, version=1)
            projected = hidden @ block.mlp_proj.weight
            normed, x = _skip_norm(x, projected, block.mlp_proj.bias, next_norm, keep_sum=next_norm is not self.ln_f)
        return (keep_last(normed, num_logits_to_keep) @ table, *present)

    def _attention(
        self, qkv: Tensor, past_key: Tensor, past_value: Tensor, seqlens_k: Tensor, total: Tensor, mask: Tensor
    ) -> Sequence[Tensor]:
        heads, head_dim = self.config.n_head, self.config.head_dim
        cache_shape = (qkv.shape[0], heads, mask.shape[1], head_dim)
        return symbolic_multi_out(
            f"{CONTRIB}::GroupQueryAttention",
            (qkv, None, None, past_key, past_value, seqlens_k, total),
            {"num_heads": heads, "kv_num_heads": heads, "scale": head_dim**-0.5},
            dtypes=(qkv.dtype,) * 3,
            shapes=((*qkv.shape[:2], self.config.n_embd), cache_shape, cache_shape),
            version=1,
        )


def keep_last(x: Tensor, count: Tensor) -> Tensor:
    """Returns the last `count` (int64 [1]) positions of x [batch, sequence, width]; all of them for 0."""
    end, axis = torch.tensor([torch.iinfo(torch.int64).max]), torch.tensor([1])
    return symbolic("Slice", (x, -count, end, axis), dtype=x.dtype, shape=x.shape)


def _skip_norm(x: Tensor, skip: Tensor, bias: Tensor | None, norm: nn.Module, keep_sum: bool) -> tuple[Tensor, Tensor]:
    """Returns LayerNorm(x + skip + bias), and the sum if `keep_sum` is true, or else the LayerNorm again."""
    assert isinstance(norm, nn.LayerNorm)
    inputs = (x, skip, norm.weight, norm.bias, *(() if bias is None else (bias,)))
    name = f"{CONTRIB}::SkipLayerNormalization"
    attributes: dict[str, Attribute] = {"epsilon": norm.eps}
    if not keep_sum:
        normed = symbolic(name, inputs, attributes, dtype=x.dtype, shape=x.shape, version=1)
        return normed, normed
    # Outputs 1 and 2 (mean and inverse deviation) exist only in training.
    outputs = symbolic_multi_out(name, inputs, attributes, dtypes=(x.dtype,) * 4, shapes=(x.shape,) * 4, version=1)
    return outputs[0], outputs[3]


def export_onnx(model: GPT, path: Path) -> None:
    """Writes the float32 graph of a GPT with its weights inside the file."""
    onnx.save_model(trace(FlatGPT(model), model.config, OPSET), path)


def trace(flat: nn.Module, config: GPTConfig, opset: int) -> onnx.ModelProto:
    """Traces a module that has the arguments and results of `FlatGPT.forward`.

    Args:
        flat: The module.
        config: The model's shape.
        opset: Version of ONNX's standard operators.

    Returns:
        The graph, without records of the source and of this machine.
    """
    past_names, present_names = cache_names(config.n_layer)
    batch, sequence, past, total = (
        torch.export.Dim(name)
        for name in ("batch_size", "sequence_length", "past_sequence_length", "total_sequence_length")
    )
    ids = torch.ones(2, 3, dtype=torch.int64)
    cache = [torch.zeros(2, config.n_head, 4, config.head_dim) for _ in past_names]
    with suppress_output():
        program = torch.onnx.export(
            flat.eval(),
            (ids, torch.ones(2, 7, dtype=torch.int64), ids.clone(), cache, torch.zeros(1, dtype=torch.int64)),
            dynamo=True,
            opset_version=opset,
            input_names=["input_ids", "attention_mask", "position_ids", *past_names, LOGITS_TO_KEEP],
            output_names=["logits", *present_names],
            dynamic_shapes={
                "input_ids": {0: batch, 1: sequence},
                "attention_mask": {0: batch, 1: total},
                "position_ids": {0: batch, 1: sequence},
                "past": [{0: batch, 2: past} for _ in past_names],
                "num_logits_to_keep": None,
            },
            verbose=False,
        )
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    proto.ir_version = IR_VERSION
    # An input with a stored value is optional. A runtime that does not know it gets all logits.
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.int64), LOGITS_TO_KEEP))
    _drop_unused_outputs(proto)
    _forget_traces(proto)
    proto.metadata_props.add(key=SHAPE_KEY, value=shape_text(config))
    return proto


def _drop_unused_outputs(proto: onnx.ModelProto) -> None:
    """Removes the names of outputs that nothing reads, so that onnxruntime does not allocate them."""
    read = {name for node in proto.graph.node for name in node.input} | {value.name for value in proto.graph.output}
    for node in proto.graph.node:
        kept = [name if name in read else "" for name in node.output]
        while not kept[-1]:
            kept.pop()
        node.output[:] = kept


def _forget_traces(proto: onnx.ModelProto) -> None:
    """Removes what the exporter records about this machine: source paths and stack traces."""
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]
    del proto.graph.metadata_props[:], proto.metadata_props[:]
    proto.doc_string = proto.graph.doc_string = ""


def read_weights(path: Path, config: GPTConfig) -> GPT:
    """Reads a GPT from a float32 graph that `export_onnx` wrote.

    Args:
        path: The ONNX file.
        config: The model's shape.

    Raises:
        SlmxError: The graph lacks a weight of a model of this shape.
    """
    model = GPT(config)
    stored = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    flat = FlatGPT(model)
    wanted = flat.state_dict()
    missing = sorted(set(wanted) - set(stored))
    if missing:
        raise SlmxError(f"{path}: holds no {missing[0]} to compare with; name the model with --checkpoint DIR")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(torch.from_numpy(numpy_helper.to_array(stored[name]).copy()))
        model.wte.weight.copy_(wanted["wte.weight_t"].t())
        for block, flat_block in zip(model.h, flat.h, strict=True):
            assert isinstance(block, Block)
            assert isinstance(flat_block, FlatBlock)
            for linear, name in (
                (block.attn.c_attn, "c_attn"),
                (block.attn.c_proj, "attn_proj"),
                (block.mlp.c_fc, "c_fc"),
                (block.mlp.c_proj, "mlp_proj"),
            ):
                linear.weight.copy_(wanted[f"h.{block.attn.layer}.{name}.weight"].t())
                linear.bias.copy_(wanted[f"h.{block.attn.layer}.{name}.bias"])
    return model.eval()
