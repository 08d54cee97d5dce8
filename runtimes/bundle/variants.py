"""The only list of the variants that a bundle can hold.

A variant is one form of the model in one file. All code that lists variants, chooses between them or checks their
limits reads `VARIANTS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Runner = Literal["onnxruntime", "torch"]
MOST_LOSS = 0.01  # the rise in bits per byte that a variant may have if it is not named


@dataclass(frozen=True)
class Gate:
    """The limits that a variant must not exceed. Otherwise it is not published. A limit of None is not checked.

    Attributes:
        parity: Largest difference of a logit from PyTorch's.
        bpb_increase: Largest rise in bits per byte, relative to the float model: 0.01 is one percent.
        decode: Whether the rise is also measured token by token, because it differs from that in whole windows.
    """

    parity: float | None = None
    bpb_increase: float | None = None
    decode: bool = False


@dataclass(frozen=True)
class Variant:
    """One form of the model.

    Attributes:
        name: Its name on the command line and in a manifest.
        file: Its file, relative to the bundle.
        what: What the file is, in a few words, for the manifest.
        runner: The library that runs it.
        is_float: Whether it computes in float32. A text then has the same logits however it is read, also step by
            step, except for the last digits.
        independent_rows: Whether the logits of a row do not depend on the other rows in the same run, and those of a
            position not on the other positions in it. In float the last digits can differ, and without `is_float` a
            step of one token can differ by more. docs/quantization.md has the rule.
        shared_cache: Whether past and present keys and values can be one buffer.
        preference: Rank as the default of a bundle that does not hold its target's default; 0 is the first choice.
        gate: The limits that it must not exceed.
    """

    name: str
    file: str
    what: str
    runner: Runner
    is_float: bool
    independent_rows: bool
    shared_cache: bool
    preference: int
    gate: Gate

    @property
    def is_torch(self) -> bool:
        """Whether PyTorch runs it instead of onnxruntime."""
        return self.runner == "torch"

    @property
    def may_be_default(self) -> bool:
        """Whether it loses so little that it may run without being named."""
        return self.gate.bpb_increase is None or self.gate.bpb_increase <= MOST_LOSS

    @property
    def is_onnx(self) -> bool:
        """Whether its file is an ONNX graph, which other runtimes and the `onnx` package can read."""
        return self.file.endswith(".onnx")


_ALL = (
    Variant(
        name="fp32",
        file="onnx/model.onnx",
        what="float32 graph with KV cache",
        runner="onnxruntime",
        is_float=True,
        independent_rows=True,
        shared_cache=True,
        preference=2,
        gate=Gate(parity=1e-4),
    ),
    Variant(
        name="int8",
        file="onnx/model_int8.onnx",
        what="dynamic int8 graph with KV cache",
        runner="onnxruntime",
        is_float=False,
        independent_rows=False,
        shared_cache=True,
        preference=0,
        gate=Gate(bpb_increase=0.01, decode=True),
    ),
    Variant(
        name="q8",
        file="onnx/model_quantized.onnx",
        what="graph with weights in 8 bits by blocks, and KV cache",
        runner="onnxruntime",
        is_float=False,
        independent_rows=True,
        shared_cache=True,
        preference=1,
        gate=Gate(bpb_increase=0.003, decode=True),
    ),
    Variant(
        name="int4",
        file="onnx/model_q4.onnx",
        what="graph with weights in 4 bits by blocks, an 8-bit head, and KV cache",
        runner="onnxruntime",
        is_float=False,
        independent_rows=False,
        shared_cache=True,
        preference=6,
        gate=Gate(bpb_increase=0.05, decode=True),
    ),
    Variant(
        name="fp16",
        file="onnx/model_fp16.onnx",
        what="float32 graph with float16 storage and KV cache",
        runner="onnxruntime",
        is_float=True,
        independent_rows=True,
        shared_cache=True,
        preference=3,
        gate=Gate(bpb_increase=0.001),
    ),
    Variant(
        name="portable",
        file="onnx/model_portable.onnx",
        what="float32 graph of standard ONNX operators with a growing KV cache",
        runner="onnxruntime",
        is_float=True,
        independent_rows=True,
        shared_cache=False,
        preference=4,
        gate=Gate(parity=1e-4),
    ),
    Variant(
        name="mobile",
        file="mobile/model.ort",
        what="onnxruntime's .ort format, for mobile builds",
        runner="onnxruntime",
        is_float=False,
        independent_rows=False,
        shared_cache=True,
        preference=5,
        gate=Gate(bpb_increase=0.01),
    ),
    Variant(
        name="torchscript",
        file="torchscript/model.ts",
        what="TorchScript with KV cache, for torch.jit.load",
        runner="torch",
        is_float=True,
        independent_rows=True,
        shared_cache=False,
        preference=7,
        gate=Gate(parity=1e-5),
    ),
    Variant(
        name="pt2",
        file="torchscript/model.pt2",
        what="exported program with KV cache, for torch.export.load",
        runner="torch",
        is_float=True,
        independent_rows=True,
        shared_cache=False,
        preference=8,
        gate=Gate(parity=1e-5),
    ),
)
# The variants by name, in the order of tables.
VARIANTS: Mapping[str, Variant] = MappingProxyType({variant.name: variant for variant in _ALL})
# The names of those that onnxruntime runs.
ONNX_VARIANTS = tuple(name for name, variant in VARIANTS.items() if not variant.is_torch)
