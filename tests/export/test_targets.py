"""Each target chooses a recipe and a default that exist, and an export for it uses them."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from export.formats.recipes import RECIPE_NAMES, RECIPES
from export.targets import TARGETS, default_variant
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from slm.console.errors import UsageError
from tests import bundles
from tests.bundles import Slmx

pytestmark = pytest.mark.slow

PAGE = Path(__file__).resolve().parents[2] / "docs" / "export.md"


def quantized(bundle: Path) -> tuple[bool, bool]:
    """Whether the matrices of a bundle's int8 graph are signed, and whether each has a scale for every channel."""
    stored = bundles.initializers(bundle / VARIANTS["int8"].file)
    weight, scale = stored["h.0.c_fc.weight_quantized"], stored["h.0.c_fc.weight_scale"]
    return weight.data_type == onnx.TensorProto.INT8, len(scale.dims) == 1 and scale.dims[0] > 1


def test_the_page_on_exports_has_the_rows_of_the_table() -> None:
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    found = {row[0].split("`")[1]: row[1:] for row in cells if len(row) == 3 and not row[0].startswith("`--")}
    assert {name: default for name, (default, _) in found.items()} == TARGETS


def test_every_target_has_a_variant_that_exists() -> None:
    assert {default_variant(name) for name in TARGETS} <= set(VARIANTS)


def test_no_recipe_saturates_wherever_its_file_may_run() -> None:
    """On x86 without VNNI, signed weights of 8 bits saturate."""
    for name in RECIPE_NAMES:
        assert not RECIPES[name].signed


def test_an_unknown_target_lists_those_there_are(slmx: Slmx) -> None:
    with pytest.raises(UsageError) as caught:
        default_variant("pi2")
    near = "(did you mean pi5?)"
    assert str(caught.value) == f"unknown target 'pi2' {near}: choose one of any, x86, pi3, pi4, pi5, web"
    assert slmx.refuses("export", "--target", "pi2", code=2) == f"--target: {caught.value}"


@pytest.mark.parametrize(
    ("name", "default", "signed", "per_channel"),
    [
        ("any", "int8", False, False),
        ("x86", "int8", False, False),
        ("pi3", "int8", False, False),
        ("pi4", "int8", False, False),
        ("pi5", "int8", False, False),
    ],
)
def test_an_export_for_a_target_quantizes_for_it(
    slmx: Slmx, tiny_checkpoint: Path, name: str, default: str, signed: bool, per_channel: bool
) -> None:
    with bundles.brief_checks():
        assert slmx("export", "--checkpoint", tiny_checkpoint, "--target", name, "--out", "b é").code == 0
    bundle = Bundle.open(Path("b é"))
    assert (bundle.manifest.target, bundle.manifest.default, bundle.choose()) == (name, default, default)
    assert list(bundle.manifest.variants) == [default], "it holds only what the target runs"
    assert quantized(bundle.path) == (signed, per_channel)
    decoder = json.loads((bundle.path / "genai_config.json").read_text("utf-8"))["model"]["decoder"]
    assert decoder["filename"] == "onnx/model_int8.onnx"


def test_an_export_for_the_web_is_fp16(slmx: Slmx, tiny_checkpoint: Path) -> None:
    with bundles.brief_checks():
        assert slmx("export", "--checkpoint", tiny_checkpoint, "--target", "web", "--out", "b").code == 0
    bundle = Bundle.open(Path("b"))
    assert (bundle.manifest.target, list(bundle.manifest.variants)) == ("web", ["fp16"])
    decoder = json.loads(Path("b/genai_config.json").read_text("utf-8"))["model"]["decoder"]
    assert decoder["filename"] == "onnx/model_fp16.onnx"


def test_a_recipe_may_be_chosen_otherwise(slmx: Slmx, tiny_checkpoint: Path) -> None:
    arguments = ("--target", "pi4", "--int8-recipe", "u8-channel")
    with bundles.brief_checks():
        assert slmx("export", "--checkpoint", tiny_checkpoint, *arguments, "--out", "b").code == 0
    assert Bundle.open(Path("b")).manifest.variants["int8"].recipe == "u8-channel"
    assert quantized(Path("b")) == (False, True)


@pytest.mark.parametrize(
    ("flags", "held"),
    [
        (("--target", "pi4", "--fp32"), ["fp32", "int8"]),
        (("--target", "pi4", "--int4"), ["int8", "int4"]),
        (("--target", "web", "--no-fp32"), ["fp16"]),
        ((), ["fp32"]),
    ],
)
def test_fp32_is_in_the_bundle_of_a_target_on_request_only(
    slmx: Slmx, tiny_checkpoint: Path, flags: tuple[str, ...], held: list[str]
) -> None:
    with bundles.brief_checks():
        assert slmx("export", "--checkpoint", tiny_checkpoint, *flags, "--out", "b").code == 0
    assert list(Bundle.open(Path("b")).manifest.variants) == held


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
    with bundles.brief_checks():
        assert slmx("export", "--checkpoint", tiny_checkpoint, *flags, "--out", "b").code == 0
    bundle = Bundle.open(Path("b"))
    assert bundle.manifest.default == default
    assert Path("b/genai_config.json").exists() is (default not in ("portable", "torchscript"))
    others = {
        "portable": "The folder is also one for Hugging Face optimum (`ORTModelForCausalLM`).\n",
        "torchscript": "",
    }.get(default, "(`ORTModelForCausalLM`) and for onnxruntime-genai.\n")
    card = Path("b/README.md").read_text("utf-8")
    assert (others in card, "also one" in card) == (True, bool(others))
    if default == "torchscript":
        line = slmx.refuses("generate", "--bundle", "b")
        assert line == "b: no variant for onnxruntime in this bundle; export it again with --int8"
