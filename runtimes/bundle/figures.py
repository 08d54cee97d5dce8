"""The figures of a variant: measured by the checks of an export, and stored in the manifest."""

from __future__ import annotations

import math
from dataclasses import dataclass

from slm.json_reader import Fields


@dataclass(frozen=True)
class Fidelity:
    """How close a variant is to the float model in one way of reading a text.

    Attributes:
        bits_per_byte: The variant's negative log-likelihood of the text.
        bpb_increase: Its rise relative to the float model's: 0.01 is one percent.
        kl: Mean of KL(float || variant), in nats per token.
        greedy_agreement: Share of the positions whose likeliest token is the float model's.
    """

    bits_per_byte: float
    bpb_increase: float
    kl: float
    greedy_agreement: float


@dataclass(frozen=True)
class Comparison:
    """A variant against the float model: read in whole windows and, where it differs, token by token as in decoding."""

    float_bits_per_byte: float
    windows: Fidelity
    decode: Fidelity | None = None

    @property
    def ways(self) -> list[Fidelity]:
        """The ways in which the text was read: windows, then decode if it was measured."""
        return [self.windows] if self.decode is None else [self.windows, self.decode]

    @property
    def worst(self) -> Fidelity:
        """The way with the larger rise in bits per byte; one whose rise is NaN comes first."""
        return max(self.ways, key=lambda way: math.inf if math.isnan(way.bpb_increase) else way.bpb_increase)

    @property
    def worst_bpb_increase(self) -> float:
        """The larger rise in bits per byte, relative to the float model; NaN if one is."""
        return self.worst.bpb_increase


@dataclass(frozen=True)
class Operators:
    """What a graph is made of.

    Attributes:
        quantized: Matrices that are multiplied by in 8 or 4 bits.
        float: Matrices that are multiplied by in float.
        nodes: Nodes after onnxruntime's optimization.
        wrong: What should be otherwise, one sentence each.
    """

    quantized: int
    float: int
    nodes: int
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figures:
    """What the checks measured of one variant; None for what its gate does not ask for.

    Attributes:
        parity: Largest difference of a logit from PyTorch's.
        same_greedy_tokens: Whether it writes the greedy tokens of the model that it was made from.
        bits_per_byte: Of the text that the variants were judged on.
        quality: The comparison with the float model.
        operators: What its graph is made of.
    """

    parity: float | None = None
    same_greedy_tokens: bool | None = None
    bits_per_byte: float | None = None
    quality: Comparison | None = None
    operators: Operators | None = None


def read_figures(fields: Fields, increase: str) -> Figures:
    """Read the figures of a variant.

    Args:
        fields: The object that holds them.
        increase: The name that this version of the format gives to `bpb_increase`.

    Raises:
        ValueError: For a value of another kind than it should be.
    """

    def comparison(key: str) -> Comparison:
        inner = fields.object(key)

        def fidelity(way: str) -> Fidelity:
            found = inner.object(way)
            return Fidelity(
                found.number("bits_per_byte"),
                found.number(increase),
                found.number("kl"),
                found.number("greedy_agreement"),
            )

        return Comparison(inner.number("float_bits_per_byte"), fidelity("windows"), inner.optional("decode", fidelity))

    def operators(key: str) -> Operators:
        inner = fields.object(key)
        wrong = inner.optional("wrong", inner.texts) or ()
        return Operators(inner.integer("quantized"), inner.integer("float"), inner.integer("nodes"), wrong)

    return Figures(
        parity=fields.optional("parity", fields.number),
        same_greedy_tokens=fields.optional("same_greedy_tokens", fields.flag),
        bits_per_byte=fields.optional("bits_per_byte", fields.number),
        quality=fields.optional("quality", comparison),
        operators=fields.optional("operators", operators),
    )
