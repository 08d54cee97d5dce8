"""The rule by which weights become whole numbers with scales."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm.blocks import BLOCK_RECIPES, Blocks, block_size, check_blocks, quantize_blocks
from slm.console.errors import SlmxError
from slm.presets import BLOCK_VARIANTS, GPTConfig

Array = npt.NDArray[np.float32]


def dequantized(blocks: tuple[npt.NDArray[np.uint8], Array], bits: int) -> Array:
    """Weights [channels, inputs] computed from their numbers and scales."""
    return Blocks(bits, *blocks).weights()


weights_in_blocks = st.builds(
    lambda seed, channels, blocks, block, size: (
        np.random.default_rng(seed).standard_normal((channels, blocks * block)).astype(np.float32) * np.float32(size),
        block,
    ),
    st.integers(0, 2**32),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from((16, 32, 64, 128)),
    st.sampled_from((1e-30, 1e-3, 1.0, 1e3)),
)
all_bits = st.sampled_from((4, 8))


@given(weights_in_blocks, all_bits)
def test_the_error_is_at_most_that_of_a_scale_by_the_largest_weight(case: tuple[Array, int], bits: int) -> None:
    weights, block = case
    half = 2 ** (bits - 1)
    numbers, scales = quantize_blocks(weights, bits, block)
    assert numbers.shape == (len(weights), weights.shape[1] // block, block)
    assert numbers.max() < 2 * half
    assert scales.shape == numbers.shape[:2]
    exact = weights.astype(np.float64).reshape(numbers.shape)
    largest = np.abs(exact).max(-1)
    # With the largest weight at -half, an error is half a step. The largest one alone can lose a whole step.
    limit = (block - 1) * (largest / half / 2) ** 2 + (largest / half) ** 2
    given_back = dequantized((numbers, scales), bits).astype(np.float64).reshape(numbers.shape)
    assert (np.square(given_back - exact).sum(-1) <= limit * 1.001).all()


@given(weights_in_blocks, all_bits, st.integers(-20, 20))
def test_weights_of_twice_the_size_have_the_same_numbers_and_twice_the_scale(
    case: tuple[Array, int], bits: int, power: int
) -> None:
    weights, block = case
    numbers, scales = quantize_blocks(weights, bits, block)
    others, larger = quantize_blocks(np.ldexp(weights, power), bits, block)
    np.testing.assert_array_equal(others, numbers)
    np.testing.assert_array_equal(larger, np.ldexp(scales, power))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("weight", [0.0, 1e-45, -1e-40])
def test_a_block_of_zeros_or_of_weights_too_small_for_a_scale_is_zero(bits: int, weight: float) -> None:
    numbers, scales = quantize_blocks(np.full((2, 32), weight, np.float32), bits, 16)
    assert (numbers == 2 ** (bits - 1)).all()
    assert (np.abs(scales) > 0.5).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_whole_numbers_of_a_scale_are_stored_exactly(bits: int) -> None:
    half = 2 ** (bits - 1)
    weights = np.tile(np.arange(-half, half, dtype=np.float32) * np.float32(0.25), (3, 1))
    np.testing.assert_array_equal(dequantized(quantize_blocks(weights, bits, 2 * half), bits), weights)


@given(st.integers(1, 5000), st.sampled_from((16, 32, 64, 128)))
def test_a_block_is_the_largest_power_of_two_that_divides(rows: int, largest: int) -> None:
    block = block_size(rows, largest)
    assert block & (block - 1) == 0
    assert rows % block == 0
    assert block == largest or (block < largest and rows % (2 * block))


@pytest.mark.parametrize("name", BLOCK_RECIPES)
@pytest.mark.parametrize(
    ("n_embd", "head_size", "n_inner", "width"), [(56, 32, 64, 56), (64, 20, 64, 40), (64, 32, 72, 72)]
)
def test_a_width_that_the_smallest_block_does_not_divide_is_refused(
    name: str, n_embd: int, head_size: int, n_inner: int, width: int
) -> None:
    sizes = GPTConfig(block_size=16, vocab_size=300, n_layer=1, n_head=2, n_embd=n_embd)
    config = replace(sizes, head_size=head_size, n_inner=n_inner)
    with pytest.raises(SlmxError) as caught:
        check_blocks(name, config, "do so")
    assert str(caught.value) == f"{name} needs widths that its blocks of 16 divide, not {width}; do so"


def test_slmx_train_offers_every_variant_in_blocks() -> None:
    assert set(BLOCK_VARIANTS) == set(BLOCK_RECIPES)
