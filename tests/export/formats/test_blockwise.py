"""q8 and int4: how weights become blocks, what a graph stores of them, and which logits stay equal bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from export.checks.operators import check_operators
from export.formats.blockwise import (
    BLOCK_RECIPES,
    HEAD_BITS,
    SMALLEST_BLOCK,
    BlockRecipe,
    Blocks,
    block_size,
    check_blocks,
    quantize_blocks,
    quantize_blockwise,
)
from export.formats.fused import export_onnx
from export.formats.graph import TOKEN_TABLE, UNTIED_TABLE, head_name, matrix_names
from runtimes.bundle.variants import VARIANTS
from runtimes.engine.cache import open_onnx
from runtimes.engine.pool import Pool
from runtimes.engine.session import Session
from slm.errors import SlmxError
from slm.model import GPT
from slm.presets import GPTConfig
from tests import bundles
from tests.shapes import ARCHITECTURES

Array = npt.NDArray[np.float32]
Quantized = Callable[[str], tuple[GPT, Path, Path]]
every_recipe = pytest.mark.parametrize("name", BLOCK_RECIPES)
slow = pytest.mark.slow


def dequantized(blocks: tuple[npt.NDArray[np.uint8], Array], bits: int) -> Array:
    """Weights [channels, inputs] computed from their numbers and scales."""
    numbers, scales = blocks
    weights: Array = (numbers.astype(np.float32) - 2 ** (bits - 1)) * scales[..., None]
    return weights.reshape(len(weights), -1)


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


def test_two_numbers_of_four_bits_share_a_byte_with_the_first_in_its_low_half() -> None:
    numbers = np.arange(16, dtype=np.uint8).reshape(1, 1, 16)
    packed, _ = Blocks("m", 4, numbers, np.ones((1, 1), np.float32)).tensors()
    assert numpy_helper.to_array(packed)[0, 0].tolist() == [0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE]


@every_recipe
@pytest.mark.parametrize(
    ("n_embd", "head_size", "n_inner", "width"), [(56, 32, 64, 56), (64, 20, 64, 40), (64, 32, 72, 72)]
)
def test_a_width_that_the_smallest_block_does_not_divide_is_refused(
    name: str, n_embd: int, head_size: int, n_inner: int, width: int
) -> None:
    sizes = GPTConfig(block_size=16, vocab_size=300, n_layer=1, n_head=2, n_embd=n_embd)
    config = replace(sizes, head_size=head_size, n_inner=n_inner)
    with pytest.raises(SlmxError) as caught:
        check_blocks(name, config)
    assert str(caught.value) == f"{name} needs widths that its blocks of 16 divide, not {width}; use --int8"


@pytest.fixture(scope="module", params=ARCHITECTURES)
def quantized(request: pytest.FixtureRequest) -> Quantized:
    """Returns a model of an architecture, its fp32 graph and its form in blocks; each is made once."""
    model = bundles.random_model(ARCHITECTURES[request.param])
    home = bundles.folder("blocks")
    export_onnx(model, home / "fp32.onnx")

    def quantize(name: str) -> tuple[GPT, Path, Path]:
        path = home / f"{name}.onnx"
        if not path.exists():
            quantize_blockwise(home / "fp32.onnx", path, BLOCK_RECIPES[name])
        return model, home / "fp32.onnx", path

    return quantize


def arrays(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    return {name: numpy_helper.to_array(tensor) for name, tensor in bundles.initializers(path).items()}


def bits_of(recipe: BlockRecipe, matrix: str, config: GPTConfig) -> int:
    return HEAD_BITS if matrix in (head_name(config), UNTIED_TABLE) else recipe.bits


def stored_weights(path: Path, name: str, bits: int) -> Array:
    """A matrix [channels, inputs] computed from what a graph stores."""
    stored = arrays(path)
    packed = np.asarray(stored[f"{name}_Q{bits}"], np.uint8)
    numbers = packed if bits == 8 else np.stack([packed & 15, packed >> 4], -1).reshape(*packed.shape[:2], -1)
    return dequantized((numbers, np.asarray(stored[f"{name}_scale"], np.float32)), bits)


@slow
@every_recipe
def test_every_matrix_is_stored_in_blocks_and_nothing_else_is_changed(quantized: Quantized, name: str) -> None:
    (model, source, path), recipe = quantized(name), BLOCK_RECIPES[name]
    config = model.config
    before, after = arrays(source), arrays(path)
    tables = [] if config.tied else [UNTIED_TABLE]
    chosen = [*matrix_names(config), *tables]
    assert not set(chosen) & set(after)
    for kept in set(before) - set(chosen):
        np.testing.assert_array_equal(after[kept], before[kept])
    for matrix in chosen:
        bits = bits_of(recipe, matrix, config)
        weights = np.asarray(before[matrix], np.float32)
        weights = weights if matrix in tables else weights.T
        expected = quantize_blocks(weights, bits, block_size(weights.shape[1], recipe.largest_block))
        np.testing.assert_array_equal(stored_weights(path, matrix, bits), dequantized(expected, bits))
    nodes = [node for node in onnx.load(path).graph.node if node.op_type == "MatMulNBits"]
    settings = [{attribute.name: attribute.i for attribute in node.attribute} for node in nodes]
    assert [node.input[1].rpartition("_")[0] for node in nodes] == matrix_names(config)
    for matrix, set_to in zip(matrix_names(config), settings, strict=True):
        rows, channels = before[matrix].shape
        block = block_size(rows, recipe.largest_block)
        assert set_to == {
            "K": rows,
            "N": channels,
            "bits": bits_of(recipe, matrix, config),
            "block_size": block,
            "accuracy_level": 4,
        }
        assert SMALLEST_BLOCK <= block <= recipe.largest_block


@slow
@every_recipe
def test_the_operators_are_right_and_the_table_is_stored_once(quantized: Quantized, name: str) -> None:
    model, _, path = quantized(name)
    config = model.config
    found = check_operators(name, path, config, [])
    assert (found["quantized"], found["float"], found["wrong"]) == (len(matrix_names(config)), 0, [])
    tables = [value for value in arrays(path).values() if value.size == config.vocab_size * config.n_embd]
    assert [table.itemsize for table in tables] == [1] * (1 if config.tied else 2)
    onnx.checker.check_model(onnx.load(path))


@slow
@every_recipe
def test_the_embedding_is_the_row_of_the_stored_table(quantized: Quantized, name: str, tmp_path: Path) -> None:
    model, _, path = quantized(name)
    config = model.config
    graph = onnx.load(path)
    graph.graph.output.append(helper.make_tensor_value_info("tokens", TensorProto.FLOAT, None))
    onnx.save_model(graph, tmp_path / "model.onnx")
    ids = np.arange(config.block_size, dtype=np.int64).reshape(2, -1)
    session = open_onnx(tmp_path / "model.onnx", 1)
    empty = np.zeros((2, config.kv_heads, 0, config.head_dim), np.float32)
    positions = np.tile(np.arange(ids.shape[1]), (2, 1))
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": positions}
    feed |= {value.name: empty for value in session.get_inputs() if value.name.startswith("past")}
    (given_rows,) = session.run(["tokens"], feed)
    table = stored_weights(path, TOKEN_TABLE if config.tied else UNTIED_TABLE, HEAD_BITS)
    np.testing.assert_array_equal(given_rows, table[ids])


@slow
@every_recipe
def test_it_runs_and_stays_as_close_to_float_as_its_bits_allow(quantized: Quantized, name: str) -> None:
    model, source, path = quantized(name)
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, model.config.block_size)
    exact = Session.open(source, model.config).score(ids)
    session = Session.open(path, model.config)
    prefilled = session.score(ids)
    session.rewind(0)
    stepped = np.stack([session.step(int(i)).copy() for i in ids])
    for logits in (prefilled, stepped):
        assert np.abs(logits - exact).mean() <= (0.08 if name == "q8" else 0.6) * np.abs(exact).mean()


@slow
def test_q8_reads_a_text_in_parts_with_the_same_bits(quantized: Quantized) -> None:
    model, _, path = quantized("q8")
    ids = np.random.default_rng(1).integers(0, model.config.vocab_size, model.config.block_size)
    session = Session.open(path, model.config, threads=1)
    whole = session.score(ids)
    for first in (1, 2, 3, 8, 17, len(ids) - 2):
        session.rewind(0)
        parts = np.concatenate([session.score(ids[:first]), session.score(ids[first:])])
        np.testing.assert_array_equal(parts, whole)


@slow
def test_a_row_of_a_batch_has_the_logits_of_that_row_alone(quantized: Quantized) -> None:
    assert VARIANTS["q8"].independent_rows
    model, _, path = quantized("q8")
    texts = np.random.default_rng(2).integers(0, model.config.vocab_size, (7, model.config.block_size))
    session = Session.open(path, model.config, threads=1)
    pool = Pool(session, len(texts))
    for row, text in enumerate(texts):
        pool.prefill(pool.add(), text[: row + 1])
    for step in range(model.config.block_size - len(texts)):
        together = pool.step([int(text[row + 1 + step]) for row, text in enumerate(texts)]).copy()
        if step % 8 == 0:
            for row, text in enumerate(texts):
                session.reset()
                session.prefill(text[: row + 1])
                for token in text[row + 1 : row + 2 + step]:
                    alone = session.step(int(token))
                np.testing.assert_array_equal(together[row], alone)
