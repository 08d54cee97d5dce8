"""The rule by which weights become whole numbers with scales: for the variants q8 and int4, and for training for them.

The weights of each output channel are cut into blocks, and each block has its own scale. `export.formats.blockwise`
writes what this rule gives, and `slm.train.qat` trains with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slm.console.errors import SlmxError
from slm.presets import GPTConfig

SMALLEST_BLOCK = 16  # of onnxruntime's MatMulNBits
# The scales that are tried, in percent of the one that makes the weight of the largest magnitude exact. Its number is
# then -2^(bits - 1), because there is one negative number more than there are positive ones.
SCALES = range(80, 116)
HEAD_BITS = 8  # of the head and the token table; docs/quantization.md says what 4 bits would cost


@dataclass(frozen=True)
class Blocks:
    """A matrix in blocks of weights.

    Attributes:
        bits: Bits of a weight.
        values: Whole numbers with 2^(bits - 1) added, uint8 [channels, blocks, block].
        scales: The scale of each block, float [channels, blocks].
    """

    bits: int
    values: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.float32]

    def weights(self) -> npt.NDArray[np.float32]:
        """Returns the weights that the numbers and scales stand for, float [channels, inputs]."""
        numbers = self.values.astype(np.float32) - np.float32(2 ** (self.bits - 1))
        return (numbers * self.scales[..., None]).reshape(len(numbers), -1)


@dataclass(frozen=True)
class BlockRecipe:
    """How weights are stored in blocks.

    Attributes:
        bits: Bits of a weight of the matrices of the layers, 8 or 4.
        largest_block: The largest number of weights that share a scale. A matrix has the largest power of two up to
            it that divides its rows.
    """

    bits: int
    largest_block: int

    @property
    def settings(self) -> dict[str, bool | int | str]:
        """The recipe for a manifest."""
        return {"bits": self.bits, "largest_block": self.largest_block, "head_bits": HEAD_BITS}

    def quantize(self, weights: npt.NDArray[np.float32], is_table: bool) -> Blocks:
        """Returns a matrix in blocks.

        Args:
            weights: float [channels, inputs].
            is_table: Whether it is the token table or the head.
        """
        bits = HEAD_BITS if is_table else self.bits
        return Blocks(bits, *quantize_blocks(weights, bits, block_size(weights.shape[1], self.largest_block)))


# docs/quantization.md has the measurements that led to these choices.
BLOCK_RECIPES = {"q8": BlockRecipe(8, 64), "int4": BlockRecipe(4, 128)}


def block_size(inputs: int, largest: int) -> int:
    """Returns the largest power of two that divides a number of inputs, at most `largest`, a power of two."""
    return math.gcd(inputs, largest)


def check_blocks(name: str, config: GPTConfig, advice: str) -> None:
    """Checks that the smallest block divides the number of rows of every matrix.

    Args:
        name: What needs the blocks, for the error.
        config: The shape of the model.
        advice: What to do about an error.

    Raises:
        SlmxError: It does not.
    """
    for rows in (config.n_embd, config.n_head * config.head_dim, config.inner):
        if rows % SMALLEST_BLOCK:
            raise SlmxError(f"{name} needs widths that its blocks of {SMALLEST_BLOCK} divide, not {rows}; {advice}")


def quantize_blocks(
    weights: npt.NDArray[np.float32], bits: int, block: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Rounds the weights of each block to whole numbers of a scale: of those tried, the one of least squared error.

    Args:
        weights: float [channels, inputs].
        bits: Bits of a weight, 8 or 4.
        block: The number of weights that share a scale. It divides `inputs`.

    Returns:
        The whole numbers with 2^(bits - 1) added, uint8 [channels, blocks, block], and the scales [channels, blocks].
    """
    half = 2 ** (bits - 1)
    blocks = weights.reshape(len(weights), -1, block)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)
    exact = (largest / -half).astype(np.float32)
    exact[np.abs(exact) < np.finfo(np.float32).tiny] = 1
    wanted = blocks / exact
    numbers = np.empty_like(wanted)

    def round_to(scales: npt.NDArray[np.float32]) -> None:  # in place: other ways take several times as long
        np.divide(wanted, scales, out=numbers)
        np.clip(np.rint(numbers, out=numbers), -half, half - 1, out=numbers)

    best, least = np.ones_like(exact), np.full_like(exact, np.inf)
    for percent in SCALES:
        scale = np.array(percent / 100, np.float32)
        round_to(scale)
        numbers *= scale
        numbers -= wanted
        error = np.einsum("cbi,cbi->cb", numbers, numbers)[..., None]
        best, least = np.where(error < least, scale, best), np.minimum(error, least)
    round_to(best)
    return (numbers + half).astype(np.uint8), (exact * best)[..., 0]
