"""Models whose matrices have equal shapes or sizes are exported and checked like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from export.checks.gates import failures
from export.checks.operators import check_operators
from export.exporter import export_bundle
from export.formats.graph import matrix_names
from export.settings import ExportSettings
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from slm.checkpoint import save_checkpoint
from slm.presets import GPTConfig
from slm.tokenizers.tokenizer import train_tokenizer
from tests import bundles

pytestmark = pytest.mark.slow

# The vocabulary's table has as many weights as: c_fc and mlp_proj; the table of positions; c_attn; attn_proj.
SHAPES = {
    "vocabulary = 4 x width": GPTConfig(block_size=40, vocab_size=384, n_layer=2, n_head=2, n_embd=96),
    "vocabulary = context": GPTConfig(block_size=320, vocab_size=320, n_layer=1, n_head=2, n_embd=32),
    "vocabulary = 3 x width": GPTConfig(block_size=40, vocab_size=288, n_layer=1, n_head=2, n_embd=96),
    "vocabulary = width": GPTConfig(block_size=24, vocab_size=288, n_layer=1, n_head=4, n_embd=288),
    "vocabulary = 4 x width = context": GPTConfig(block_size=384, vocab_size=384, n_layer=1, n_head=2, n_embd=96),
}


@pytest.fixture(scope="module", params=SHAPES)
def bundle(request: pytest.FixtureRequest, stories: list[str]) -> Bundle:
    config = SHAPES[request.param]
    tokenizer, merges = train_tokenizer(stories, config.vocab_size)
    folder = bundles.folder("checkpoint é %#")
    save_checkpoint(folder, "nano", bundles.random_model(config), tokenizer, merges, {})
    out = bundles.folder("bundle é %#") / "b"
    variants = ("fp32", "int8", "q8", "int4", "fp16", "portable", "mobile")
    with bundles.brief_checks():
        export_bundle(ExportSettings(None, out, folder, variants), lambda line: None)
    return Bundle.open(out)


def test_every_variant_is_exported_and_passes(bundle: Bundle) -> None:
    for name, entry in bundle.manifest.variants.items():
        assert failures(name, entry.figures) == []
        operators = entry.figures.operators
        if operators is not None:
            counts = operators.quantized, operators.float
            matrices = len(matrix_names(bundle.config))
            assert counts == ((matrices, 0) if name in ("int8", "q8", "int4") else (0, matrices))


def test_a_second_copy_of_the_table_is_found_under_each_of_its_names(bundle: Bundle, tmp_path: Path) -> None:
    for name in ("fp32", "int8", "q8", "int4", "fp16", "portable"):
        graph = onnx.load(bundle.path / VARIANTS[name].file)
        in_float = name in ("fp32", "fp16", "portable")
        copy = onnx.numpy_helper.from_array(np.zeros((2, 2), np.float32), f"wte.weight_t{'_quantized' * in_float}")
        graph.graph.initializer.append(copy)
        path = tmp_path / "é %#.onnx"
        onnx.save_model(graph, path)
        assert "the token table is stored 2 times" in check_operators(name, path, bundle.config, []).wrong
