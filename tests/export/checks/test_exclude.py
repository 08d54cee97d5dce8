"""A matrix that int8 cannot represent is found and named, and only this matrix stays in float."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from export import exporter
from export.checks import exclude
from export.formats.graph import matrix_names
from export.formats.quantize import quantize_int8
from export.formats.recipes import Int8Recipe
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from slm.checkpoint import load_checkpoint, save_checkpoint
from slm.presets import GPTConfig
from tests import bundles
from tests.bundles import Slmx

pytestmark = pytest.mark.slow

CULPRIT = "h.1.mlp_proj.weight"
MATRICES = matrix_names(GPTConfig(block_size=1, vocab_size=1, n_layer=2, n_head=1, n_embd=1))


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with bundles.brief_checks():
        yield


@pytest.fixture(scope="module")
def outlier(tiny_checkpoint: Path) -> Path:
    """The tiny checkpoint with one weight so large that its matrix has no scale for the others.

    The unit that it reads never fires, so that nothing else is disturbed.
    """
    loaded = load_checkpoint(tiny_checkpoint)
    with torch.no_grad():
        loaded.model.get_parameter("h.1.mlp.c_fc.bias")[0] = -100.0
        loaded.model.get_parameter("h.1.mlp.c_proj.weight")[0, 0] = 300.0
    folder = bundles.folder("outlier")
    save_checkpoint(folder, "nano", loaded.model, loaded.tokenizer, loaded.merges, loaded.record)
    return folder


@pytest.fixture
def quantized(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, frozenset[str]]]:
    """What was quantized so far: the recipe, and the matrices."""
    calls: list[tuple[str, frozenset[str]]] = []

    def noted(source: Path, target: Path, recipe: Int8Recipe, only: set[str] | None = None) -> None:
        calls.append((recipe.name, frozenset(MATRICES if only is None else only)))
        quantize_int8(source, target, recipe, only)

    for module in (exporter, exclude):
        monkeypatch.setattr(module, "quantize_int8", noted)
    return calls


def test_the_refusal_names_it_and_the_way_out(
    slmx: Slmx, outlier: Path, quantized: list[tuple[str, frozenset[str]]]
) -> None:
    line = slmx.refuses("export", "--checkpoint", outlier, "--int8")
    assert f"what hurts most: {CULPRIT} (" in line
    assert "--int8-exclude auto; nothing was published" in line
    assert [recipe for recipe, names in quantized if names == set(MATRICES)] == ["u8-tensor", "u8-channel"]
    assert not Path("bundles").exists()


def test_auto_leaves_just_that_one_in_float_and_says_the_cost(
    slmx: Slmx, outlier: Path, quantized: list[tuple[str, frozenset[str]]]
) -> None:
    ran = slmx("export", "--checkpoint", outlier, "--int8", "--int8-exclude", "auto", "--out", "b")
    assert ran.code == 0
    entry = Bundle.open(Path("b")).manifest.variants["int8"]
    exclusion, quality = entry.exclusion, entry.figures.quality
    limit = VARIANTS["int8"].gate.bpb_increase
    assert exclusion is not None
    assert quality is not None
    assert quality.decode is not None
    assert limit is not None
    assert entry.kept_float == exclusion.names == (CULPRIT,)
    assert len(set(quantized)) == len(quantized)
    assert exclusion.bpb_increase_without > limit >= quality.decode.bpb_increase
    # 128 x 32 weights of four bytes instead of one.
    assert exclusion.bytes_added == pytest.approx(3 * 128 * 32, abs=1000)
    assert exclusion.step_time_ratio > 0
    operators = entry.figures.operators
    assert operators is not None
    assert (operators.quantized, operators.float) == (len(MATRICES) - 1, 1)
    assert f"{CULPRIT} in float cost {exclusion.bytes_added:,} bytes" in ran.stderr
    assert slmx("verify", "b", "--quality").code == 0


def test_a_large_model_is_refused_without_a_long_search(
    slmx: Slmx, outlier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "LONG_SEARCH", 0)
    monkeypatch.setattr(exporter, "increases_alone", None)
    line = slmx.refuses("export", "--checkpoint", outlier, "--int8")
    assert line.endswith(
        "the search for the matrices that hurt would take hours for a model of this size; export it with --fp16 in "
        "place of --int8, which loses nothing; nothing was published"
    )


def test_auto_excludes_nothing_where_nothing_hurts(slmx: Slmx, tiny_checkpoint: Path) -> None:
    assert slmx("export", "--checkpoint", tiny_checkpoint, "--int8", "--int8-exclude", "auto", "--out", "b").code == 0
    entry = Bundle.open(Path("b")).manifest.variants["int8"]
    assert entry.kept_float == ()
    assert entry.exclusion is None


def test_matrices_can_be_named(slmx: Slmx, tiny_checkpoint: Path) -> None:
    named = "wte.weight_t, h.0.c_attn.weight"
    assert slmx("export", "--checkpoint", tiny_checkpoint, "--int8", "--int8-exclude", named, "--out", "b").code == 0
    entry = Bundle.open(Path("b")).manifest.variants["int8"]
    assert entry.kept_float == ("h.0.c_attn.weight", "wte.weight_t")
    operators = entry.figures.operators
    assert operators is not None
    assert (operators.quantized, operators.float) == (len(MATRICES) - 2, 2)
    assert slmx("verify", "b", "--quality").code == 0


def test_without_int8_there_is_nothing_to_exclude(slmx: Slmx, tiny_checkpoint: Path) -> None:
    line = slmx.refuses("export", "--checkpoint", tiny_checkpoint, "--int8-exclude", "auto", code=2)
    assert line == "--int8-exclude is about int8: add --int8"


def test_an_unknown_matrix_lists_those_there_are(slmx: Slmx, tiny_checkpoint: Path) -> None:
    flags = ("--checkpoint", tiny_checkpoint, "--int8", "--int8-exclude", "h.9.c_fc.weight")
    line = slmx.refuses("export", *flags, code=2)
    assert line == f"--int8-exclude: no matrix 'h.9.c_fc.weight'; there are {', '.join(MATRICES)}, and auto"
