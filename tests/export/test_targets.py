"""Targets: each chooses a recipe and a default that exist, and an export for one has what it asks for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from export.formats.quantize import DEFAULT_RECIPE, RECIPES
from export.targets import TARGETS, get_target
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from slm.errors import SlmxError
from tests import bundles
from tests.bundles import Slmx

pytestmark = pytest.mark.slow


def test_every_row_names_what_exists() -> None:
    assert list(TARGETS) == ["any", "x86", "x86-vnni", "pi4", "pi5", "web"]
    for target in TARGETS.values():
        assert target.int8_recipe in RECIPES
        assert target.default in VARIANTS
        assert target.why


def test_what_any_promises() -> None:
    """Right on every processor: no saturation without VNNI, no block-wise weights where they are slow."""
    recipe = RECIPES[get_target("any").int8_recipe]
    assert get_target("any").int8_recipe == DEFAULT_RECIPE
    assert not recipe.signed or recipe.reduce_range
    assert all(target.default != "int4" for target in TARGETS.values())
    for name in ("any", "x86"):
        assert not RECIPES[get_target(name).int8_recipe].signed


def test_an_unknown_target_lists_those_there_are(slmx: Slmx) -> None:
    with pytest.raises(SlmxError) as caught:
        get_target("pi3")
    assert str(caught.value) == "unknown target 'pi3': choose one of any, x86, x86-vnni, pi4, pi5, web"
    assert slmx.refuses("export", "--target", "pi3") == str(caught.value)


@pytest.mark.parametrize("name", TARGETS)
def test_an_export_for_a_target_has_its_variant_as_default(slmx: Slmx, tiny_checkpoint: Path, name: str) -> None:
    with bundles.brief_judge():
        assert slmx("export", "--checkpoint", tiny_checkpoint, "--target", name, "--out", "b").code == 0
    bundle, target = Bundle.open(Path("b")), get_target(name)
    assert bundle.manifest.target == name
    assert bundle.manifest.default == bundle.variants[0] == target.default
    if "int8" in bundle.variants:
        assert bundle.manifest.variants["int8"].recipe == target.int8_recipe
    decoder = json.loads(Path("b/genai_config.json").read_text("utf-8"))["model"]["decoder"]
    assert decoder["filename"] == VARIANTS[target.default].file


def test_a_recipe_may_be_chosen_otherwise(slmx: Slmx, tiny_checkpoint: Path) -> None:
    arguments = ("--target", "pi4", "--int8-recipe", "u8-channel")
    with bundles.brief_judge():
        assert slmx("export", "--checkpoint", tiny_checkpoint, *arguments, "--out", "b").code == 0
    assert Bundle.open(Path("b")).manifest.variants["int8"].recipe == "u8-channel"


@pytest.mark.parametrize(
    ("flags", "default"),
    [
        (("--int4", "--no-fp32"), "int4"),
        (("--int4",), "fp32"),
        (("--int4", "--fp16", "--no-fp32"), "fp16"),
        (("--portable", "--no-fp32"), "portable"),
        (("--torchscript", "--no-fp32"), "torchscript"),
    ],
)
def test_int4_is_the_default_only_when_it_is_alone(
    slmx: Slmx, tiny_checkpoint: Path, flags: tuple[str, ...], default: str
) -> None:
    with bundles.brief_judge():
        assert slmx("export", "--checkpoint", tiny_checkpoint, *flags, "--out", "b").code == 0
    bundle = Bundle.open(Path("b"))
    assert bundle.manifest.default == default
    assert Path("b/genai_config.json").exists() is (default not in ("portable", "torchscript"))
    if default == "torchscript":
        line = slmx.refuses("generate", "--bundle", "b")
        assert line == "b: no variant for onnxruntime in this bundle; export it again with --int8"
