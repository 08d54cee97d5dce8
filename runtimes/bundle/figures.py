"""The figures of a variant. The checks of an export measure them, and the manifest stores them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from slm.storage.json_reader import Fields


@dataclass(frozen=True)
class Fidelity:
    """How close a variant is to the float model in one way of reading a text.

    Attributes:
        bits_per_byte: The variant's negative log-likelihood of the text, in bits per byte.
        bpb_increase: The rise of `bits_per_byte` relative to the float model; 0.01 is one percent.
        kl: Mean of KL(float || variant), in nats per token.
        greedy_agreement: Share of the positions where both models have the same most likely token.
    """

    bits_per_byte: float
    bpb_increase: float
    kl: float
    greedy_agreement: float


@dataclass(frozen=True)
class Comparison:
    """A variant compared with the float model: in whole windows and, if that differs, token by token as in decoding."""

    float_bits_per_byte: float
    windows: Fidelity
    decode: Fidelity | None = None

    @property
    def ways(self) -> list[Fidelity]:
        """The ways in which the text was read: windows, then decode if it was measured."""
        return [self.windows] if self.decode is None else [self.windows, self.decode]

    @property
    def worst(self) -> Fidelity:
        """The way with the larger rise in bits per byte. A rise of NaN counts as the largest."""
        return max(self.ways, key=lambda way: math.inf if math.isnan(way.bpb_increase) else way.bpb_increase)

    @property
    def worst_bpb_increase(self) -> float:
        """The larger rise in bits per byte, relative to the float model; NaN if one of them is NaN."""
        return self.worst.bpb_increase


@dataclass(frozen=True)
class Operators:
    """The operators of a graph.

    Attributes:
        quantized: Number of matrices that are multiplied in 8 or 4 bits.
        float: Number of matrices that are multiplied in float.
        nodes: Number of nodes after onnxruntime's optimization.
        wrong: One sentence for each fault.
    """

    quantized: int
    float: int
    nodes: int
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True)
class Saturation:
    """How many weights of int8 are at an end of the range of their matrix.

    Attributes:
        weights: Number of weights that are stored in 8 bits.
        at_ends: Those that are stored as the least or the largest number of their matrix.
        clipped: Those of them that are more than half a step away from the float weight, so their range was cut.
    """

    weights: int
    at_ends: int
    clipped: int


@dataclass(frozen=True)
class Figures:
    """What the checks measured for one variant; None for what its gate does not need.

    Attributes:
        parity: Largest difference of a logit from PyTorch's, as `export.checks.parity` measures it.
        same_greedy_tokens: Whether it writes the greedy tokens of the model that it was made from.
        bits_per_byte: Bits per byte of the text that the variants were compared on.
        quality: The comparison with the float model.
        operators: The operators of its graph.
        saturation: The weights at the ends of their range, for int8.
    """

    parity: float | None = None
    same_greedy_tokens: bool | None = None
    bits_per_byte: float | None = None
    quality: Comparison | None = None
    operators: Operators | None = None
    saturation: Saturation | None = None


def read_increase(fields: Fields, ending: str = "") -> float:
    """Reads a rise in bits per byte, `bpb_increase`. The first bundles of format 2 call it `loss`.

    Args:
        fields: The object that holds it.
        ending: What follows either name.

    Raises:
        ValueError: It is missing or no number.
    """
    old = f"loss{ending}"
    return fields.number(old if old in fields else f"bpb_increase{ending}")


def read_figures(fields: Fields) -> Figures:
    """Reads the figures of a variant.

    Args:
        fields: The object that holds them.

    Raises:
        ValueError: A value is missing or of the wrong type.
    """

    def comparison(key: str) -> Comparison:
        inner = fields.object(key)

        def fidelity(way: str) -> Fidelity:
            found = inner.object(way)
            return Fidelity(
                found.number("bits_per_byte"),
                read_increase(found),
                found.number("kl"),
                found.number("greedy_agreement"),
            )

        return Comparison(inner.number("float_bits_per_byte"), fidelity("windows"), inner.optional("decode", fidelity))

    def operators(key: str) -> Operators:
        inner = fields.object(key)
        wrong = inner.optional("wrong", inner.texts) or ()
        return Operators(inner.integer("quantized"), inner.integer("float"), inner.integer("nodes"), wrong)

    def saturation(key: str) -> Saturation:
        inner = fields.object(key)
        return Saturation(inner.integer("weights"), inner.integer("at_ends"), inner.integer("clipped"))

    return Figures(
        parity=fields.optional("parity", fields.number),
        same_greedy_tokens=fields.optional("same_greedy_tokens", fields.flag),
        bits_per_byte=fields.optional("bits_per_byte", fields.number),
        quality=fields.optional("quality", comparison),
        operators=fields.optional("operators", operators),
        saturation=fields.optional("saturation", saturation),
    )
