"""A variant within its limit is published. For any other, the message names the cause and what would pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import export.checks.exclude
import export.checks.gates
import export.exporter
from export.checks.float_model import FloatModel, eval_text
from export.exporter import export_bundle
from export.formats.graph import matrix_names
from export.formats.quantize import quantize_int8
from export.formats.recipes import RECIPE_NAMES, RECIPES
from export.settings import ExportSettings
from runtimes.bundle.manifest import Manifest
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS, Gate
from slm.checkpoint import load_checkpoint
from slm.console.errors import SlmxError
from tests import bundles
from tests.bundles import Slmx

pytestmark = pytest.mark.slow


def manifest_of(bundle: Path) -> Manifest:
    return Bundle.open(bundle).manifest


@pytest.mark.usefixtures("quick", "ready_graph")
def test_fp32_that_differs_from_pytorch_is_refused(
    slmx: Slmx, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for difference in (2e-4, float("nan")):
        monkeypatch.setattr(export.checks.gates, "parity", lambda *args, d=difference, **kwargs: d)
        line = slmx.refuses_unchanged("export", "--checkpoint", tiny_checkpoint, "--out", "b")
        assert line == f"fp32 differs from PyTorch by {difference:.1e} (limit 1e-04); nothing was published"


@pytest.fixture(scope="module")
def losses(tiny_checkpoint: Path) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """The worst loss of the tiny checkpoint by recipe, and by recipe and matrix if only one matrix is quantized."""
    checkpoint = load_checkpoint(tiny_checkpoint)
    float_model = FloatModel(
        checkpoint.model, eval_text(checkpoint.model, checkpoint.tokenizer, None), max_tokens=bundles.CHECKED_TOKENS
    )
    fp32 = bundles.tiny_bundle(tiny_checkpoint) / VARIANTS["fp32"].file
    trial = bundles.folder("losses") / "trial.onnx"
    whole = {}
    for name in RECIPE_NAMES:
        quantize_int8(fp32, trial, RECIPES[name])
        whole[name] = float_model.compare(trial).worst_bpb_increase
    alone: dict[str, dict[str, float]] = {}
    for name in (max(whole, key=lambda name: whole[name]), min(whole, key=lambda name: whole[name])):
        alone[name] = {}
        for matrix in matrix_names(checkpoint.model.config):
            quantize_int8(fp32, trial, RECIPES[name], only={matrix})
            alone[name][matrix] = float_model.compare(trial).worst_bpb_increase
    return whole, alone


def limit_int8(monkeypatch: pytest.MonkeyPatch, loss: float) -> None:
    limited = {**VARIANTS, "int8": replace(VARIANTS["int8"], gate=Gate(bpb_increase=loss, decode=True))}
    monkeypatch.setattr(export.checks.gates, "VARIANTS", limited)
    monkeypatch.setattr(export.exporter, "VARIANTS", limited)


@pytest.mark.usefixtures("quick", "ready_graph")
def test_int8_over_its_limit_names_the_matrix_that_hurts_and_what_would_pass(
    slmx: Slmx,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    losses: tuple[dict[str, float], dict[str, dict[str, float]]],
) -> None:
    whole, alone = losses
    recipe, best = max(whole, key=lambda name: whole[name]), min(whole, key=lambda name: whole[name])
    limit = (whole[recipe] + whole[best]) / 2
    limit_int8(monkeypatch, limit)
    monkeypatch.setattr(export.checks.exclude, "SEARCH_TOKENS", bundles.CHECKED_TOKENS)
    bundles.copy_of(bundles.tiny_bundle(tiny_checkpoint), Path("b"))
    line = slmx.refuses_unchanged(
        "export", "--checkpoint", tiny_checkpoint, "--out", "b", "--force", "--int8", "--int8-recipe", recipe
    )
    worst = sorted(alone[recipe], key=lambda name: -alone[recipe][name])[:3]
    named = ", ".join(f"{name} ({alone[recipe][name]:+.1%} alone)" for name in worst)
    passing = " or ".join(name for name in RECIPE_NAMES if whole[name] <= limit)
    assert line == (
        f"int8 ({recipe}) needs {whole[recipe]:.1%} more bits per byte (limit {limit:.0%}); what hurts most: {named}; "
        f"try --int8-recipe {passing} or --int8-exclude auto; nothing was published"
    )
    assert (
        slmx("export", "--checkpoint", tiny_checkpoint, "--out", "b", "--force", "--int8", "--int8-recipe", best).code
        == 0
    )
    assert manifest_of(Path("b")).variants["int8"].recipe == best


@pytest.mark.usefixtures("quick", "ready_graph")
def test_when_no_recipe_passes_the_line_says_so(
    slmx: Slmx, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_int8(monkeypatch, -1.0)
    monkeypatch.setattr(export.exporter, "RECIPE_NAMES", RECIPE_NAMES[:2])
    line = slmx.refuses_unchanged("export", "--checkpoint", tiny_checkpoint, "--out", "b", "--int8")
    assert line.endswith("; try --int8-exclude auto; nothing was published")
    line = slmx.refuses_unchanged(
        "export", "--checkpoint", tiny_checkpoint, "--out", "b", "--int8", "--int8-exclude", "auto"
    )
    assert line.endswith("no exclusion keeps the rise in bits per byte within -100%; export without --int8")


def test_int8_passes_only_when_its_loss_is_known_to_be_within_the_limit(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ready_graph: None
) -> None:
    monkeypatch.setattr(export.exporter._Export, "_int8_refusal", lambda *args: "refused")
    with bundles.brief_checks():
        for limit, passes in ((float("inf"), True), (float("nan"), False)):
            limit_int8(monkeypatch, limit)
            settings = ExportSettings("nano", tmp_path / str(limit), tiny_checkpoint, ("fp32", "int8"))
            if passes:
                export_bundle(settings, lambda line: None)
            else:
                with pytest.raises(SlmxError, match="refused"):
                    export_bundle(settings, lambda line: None)
