"""q8 and int4: what a graph stores of weights in blocks, and which logits stay equal bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from export.checks.operators import check_operators
from export.formats.blockwise import StoredBlocks, quantize_blockwise
from export.formats.fused import export_onnx
from export.formats.graph import TOKEN_TABLE, UNTIED_TABLE, head_name, matrix_names, weight_names
from runtimes.bundle.variants import VARIANTS
from runtimes.engine.cache import open_onnx
from runtimes.engine.pool import Pool
from runtimes.engine.session import Session
from slm.blocks import BLOCK_RECIPES, HEAD_BITS, SMALLEST_BLOCK, BlockRecipe, Blocks, block_size
from slm.model import GPT
from slm.presets import GPTConfig
from slm.train.qat import as_exported, matrices
from tests import bundles
from tests.shapes import ARCHITECTURES

Array = npt.NDArray[np.float32]
Quantized = Callable[[str], tuple[GPT, Path, Path]]
every_recipe = pytest.mark.parametrize("name", BLOCK_RECIPES)
slow = pytest.mark.slow


def test_two_numbers_of_four_bits_share_a_byte_with_the_first_in_its_low_half() -> None:
    numbers = np.arange(16, dtype=np.uint8).reshape(1, 1, 16)
    packed, _ = StoredBlocks("m", Blocks(4, numbers, np.ones((1, 1), np.float32))).tensors()
    assert numpy_helper.to_array(packed)[0, 0].tolist() == [0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def quantized(request: pytest.FixtureRequest) -> Quantized:
    """Returns a model of an architecture, its fp32 graph and its form in blocks; each is made once."""
    model = bundles.random_model(ARCHITECTURES[request.param])
    home = bundles.folder("blocks")
    export_onnx(model, home / "fp32.onnx")

    def quantize(name: str) -> tuple[GPT, Path, Path]:
        path = home / f"{name}.onnx"
        if not path.exists():
            quantize_blockwise(home / "fp32.onnx", path, BLOCK_RECIPES[name], None)
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
    return Blocks(bits, numbers, np.asarray(stored[f"{name}_scale"], np.float32)).weights()


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
        expected = recipe.quantize(weights, is_table=bits == HEAD_BITS)
        np.testing.assert_array_equal(stored_weights(path, matrix, bits), expected.weights())
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
def test_a_graph_holds_the_weights_that_training_for_it_uses(quantized: Quantized, name: str) -> None:
    model, _, path = quantized(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with as_exported(model, name):
        trained = {key: tensor.detach().numpy().copy() for key, tensor in matrices(model).items()}
        unchanged = set(before) - set(trained)
        assert all(torch.equal(model.state_dict()[key], before[key]) for key in unchanged)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    stored = {name: parameter for name, (parameter, _) in weight_names(model.config).items()}
    chosen = {*matrix_names(model.config), *([] if model.config.tied else [UNTIED_TABLE])}
    assert {stored[matrix] for matrix in chosen} == set(trained)
    for matrix in chosen:
        bits = bits_of(BLOCK_RECIPES[name], matrix, model.config)
        np.testing.assert_array_equal(stored_weights(path, matrix, bits), trained[stored[matrix]])


@slow
@every_recipe
def test_the_operators_are_right_and_the_table_is_stored_once(quantized: Quantized, name: str) -> None:
    model, _, path = quantized(name)
    config = model.config
    found = check_operators(name, path, config, [])
    assert (found.quantized, found.float, found.wrong) == (len(matrix_names(config)), 0, ())
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
