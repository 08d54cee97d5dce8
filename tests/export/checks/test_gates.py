"""The verification of a bundle finds its faults, reports them and writes the result."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from export.checks import gates
from export.checks.float_model import FloatModel, eval_text
from export.checks.gates import failures
from export.checks.greedy import greedy_tokens
from export.checks.operators import check_operators
from export.checks.parity import GREEDY_TOKENS
from export.formats.fused import export_onnx
from export.formats.graph import matrix_names, read_weights
from export.formats.quantize import quantize_int8
from export.formats.recipes import DEFAULT_RECIPE, RECIPES
from runtimes.bundle.figures import Comparison, Fidelity, Figures
from runtimes.bundle.manifest import VERIFICATION_FILE
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from runtimes.engine.session import Session
from slm.checkpoint import load_checkpoint, save_checkpoint
from slm.console.errors import SlmxError
from slm.model import GPT
from slm.storage.file_names import MANIFEST_FILE
from tests import bundles
from tests.bundles import Slmx

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with bundles.brief_checks():
        yield


@pytest.fixture
def whole(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return bundles.copy_of(bundles.tiny_bundle_of_all(tiny_checkpoint), tmp_path / "whole")


@pytest.fixture
def small(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the bundle with fp32 and int8 only."""
    return bundles.copy_of(bundles.tiny_bundle(tiny_checkpoint), tmp_path / "small")


def replace_file(bundle: Path, name: str, source: Path) -> None:
    """Replaces a file of a bundle and its hash in the manifest, as an attacker would."""
    shutil.copyfile(source, bundle / name)
    bundles.list_again(bundle, name)


def found_of(bundle: Path) -> dict[str, Any]:
    """The content of verification.json."""
    found: dict[str, Any] = json.loads((bundle / VERIFICATION_FILE).read_text("utf-8"))
    return found


def test_a_whole_bundle_passes_and_says_what_was_measured(slmx: Slmx, whole: Path) -> None:
    before = bundles.snapshot(whole)
    ran = slmx("verify", whole, "--quality", "--trust")
    assert ran.code == 0
    rows = ran.stdout.splitlines()
    assert [row.split()[0] for row in rows[1 : 1 + len(VARIANTS)]] == list(VARIANTS)
    assert "int8: passed; matrices: 9 quantized, 0 float; nodes in the graph: 29" in rows
    assert "q8: passed; matrices: 9 quantized, 0 float; nodes in the graph: 31" in rows
    assert "int4: passed; matrices: 9 quantized, 0 float; nodes in the graph: 31" in rows
    assert "fp32: passed; matrices: 0 quantized, 9 float; nodes in the graph: 30" in rows
    assert "torchscript: passed" in rows
    assert rows[-1].endswith("files and the manifest, every hash matches")
    assert "float model: the weights of its fp32 graph" in ran.stderr
    found = found_of(whole)
    assert (found["problems"], found["quality"]["not_read"]) == ([], [])
    stored = json.loads((whole / MANIFEST_FILE).read_text("utf-8"))
    assert found["quality"]["judged_on"] == stored["judged_on"]
    assert list(found["quality"]["variants"]) == list(stored["variants"])
    for name, entry in stored["variants"].items():
        measured = found["quality"]["variants"][name]
        assert measured["failures"] == []
        assert {key: measured.get(key) for key in ("parity", "quality")} == {
            key: entry["figures"].get(key) for key in ("parity", "quality")
        }
    after = bundles.snapshot(whole)
    del after[VERIFICATION_FILE]
    assert after == before


def test_torch_files_are_read_with_trust_only(slmx: Slmx, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a torch file was read")

    monkeypatch.setattr("torch.jit.load", refuse)
    monkeypatch.setattr("torch.export.load", refuse)
    variants = json.loads((whole / MANIFEST_FILE).read_text("utf-8"))["variants"]
    kept = {name: variants[name] for name in ("fp32", "torchscript", "pt2")}
    bundles.edit_manifest(whole, variants=kept, default="fp32")
    ran = slmx("verify", whole, "--quality")
    assert ran.code == 0
    for name in ("torchscript", "pt2"):
        assert f"{name}: not read (PyTorch can run code from it: needs --quality --trust)" in ran.stdout.splitlines()
    assert found_of(whole)["quality"]["not_read"] == ["torchscript", "pt2"]
    assert list(found_of(whole)["quality"]["variants"]) == ["fp32"]


def test_the_checkpoint_may_be_named_and_must_be_its_own(
    slmx: Slmx, small: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    assert slmx("verify", small, "--quality", "--checkpoint", tiny_checkpoint).code == 0
    loaded = load_checkpoint(tiny_checkpoint)
    other = tmp_path / "other é %#"
    other.mkdir()
    model = GPT(loaded.model.config).eval()
    save_checkpoint(other, "nano", model, loaded.tokenizer, loaded.merges, {})
    line = slmx.refuses("verify", small, "--quality", "--checkpoint", other)
    assert line == f"{small}: not made from {other}; name its own checkpoint, or none"


def test_without_fp32_the_checkpoint_must_be_named(slmx: Slmx, small: Path) -> None:
    variants = json.loads((small / MANIFEST_FILE).read_text("utf-8"))["variants"]
    del variants["fp32"]
    bundles.edit_manifest(small, variants=variants)
    line = slmx.refuses("verify", small, "--quality")
    assert line == f"{small}: no fp32 variant to compare with; name the model with --checkpoint DIR"


def test_the_weights_of_an_fp32_graph_are_the_models(tmp_path: Path) -> None:
    model, path = bundles.small_graph()
    again = read_weights(path, model.config)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    graph = onnx.load(path)
    graph.graph.initializer.remove(next(t for t in graph.graph.initializer if t.name == "ln_f.bias"))
    onnx.save_model(graph, tmp_path / "less.onnx")
    with pytest.raises(SlmxError, match=r"holds no ln_f\.bias to compare with; name the model with --checkpoint"):
        read_weights(tmp_path / "less.onnx", model.config)


def test_a_bundle_with_a_changed_byte_is_not_measured(slmx: Slmx, small: Path) -> None:
    path = small / VARIANTS["int8"].file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    ran = slmx("verify", small, "--quality")
    assert ran.code == 1
    assert ran.stdout.startswith(f"FAILED: {path}: not the file that manifest.json lists")
    assert "quality" not in found_of(small)


def test_int8_that_is_float_inside_fails(slmx: Slmx, small: Path) -> None:
    replace_file(small, VARIANTS["int8"].file, small / VARIANTS["fp32"].file)
    ran = slmx("verify", small, "--quality")
    assert ran.code == 1
    assert "int8: FAILED: h.0.attn_proj.weight was to be quantized and is not; " in ran.stdout
    assert found_of(small)["quality"]["variants"]["int8"]["failures"]


def test_int8_that_lost_too_much_fails(slmx: Slmx, small: Path, tmp_path: Path) -> None:
    model = onnx.load(small / VARIANTS["int8"].file)
    for tensor in model.graph.initializer:
        if tensor.name == "h.0.c_fc.weight_scale":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(5), tensor.name))
    onnx.save_model(model, tmp_path / "worse.onnx")
    replace_file(small, VARIANTS["int8"].file, tmp_path / "worse.onnx")
    ran = slmx("verify", small, "--quality")
    assert ran.code == 1
    (line,) = [row for row in ran.stdout.splitlines() if row.startswith("int8: FAILED")]
    assert "more bits per byte (limit 1.0%)" in line


def test_mobile_is_compared_with_its_source_over_as_few_tokens_as_fp32_with_pytorch(
    whole: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the whole of a long context, two sessions would take hours."""
    bundle, loaded, written = Bundle.open(whole), load_checkpoint(tiny_checkpoint), list[int]()

    def noted(session: Session, prompt: list[int], max_tokens: int) -> list[int]:
        written.append(max_tokens)
        return greedy_tokens(session, prompt, max_tokens)

    monkeypatch.setattr(gates, "greedy_tokens", noted)
    text = eval_text(loaded.model, loaded.tokenizer, None)
    float_model = FloatModel(loaded.model, text, bundles.CHECKED_TOKENS)
    mobile, fp32 = (bundle.model_file(name) for name in ("mobile", "fp32"))

    def same(source: bytes | Path) -> bool | None:
        found = gates.check_variant("mobile", mobile, float_model, trusted=False, kept_float=(), source=source)
        return found.same_greedy_tokens

    assert same(bundle.model_file("int8")) is True
    export_onnx(bundles.random_model(bundle.config), whole / "other.onnx")
    assert same(whole / "other.onnx") is False
    gates.check_variant("fp32", fp32, float_model, trusted=False, kept_float=(), source=None)
    assert written == [GREEDY_TOKENS] * 5


@pytest.mark.parametrize("variant", ["portable", "torchscript", "pt2"])
def test_another_models_file_fails(slmx: Slmx, whole: Path, tmp_path: Path, variant: str) -> None:
    from export.formats.portable import export_portable
    from export.formats.torch_files import export_pt2, export_torchscript

    write = {"portable": export_portable, "torchscript": export_torchscript, "pt2": export_pt2}[variant]
    write(bundles.random_model(Bundle.open(whole).config), tmp_path / "other")
    replace_file(whole, VARIANTS[variant].file, tmp_path / "other")
    ran = slmx("verify", whole, "--quality", "--trust")
    assert ran.code == 1
    assert f"{variant}: FAILED: {variant} differs from PyTorch by " in ran.stdout
    assert ran.stdout.count("FAILED") == 1


def test_a_float_copy_of_a_quantized_matrix_is_found(tmp_path: Path) -> None:
    model, source = bundles.small_graph()
    path = tmp_path / "model.onnx"
    quantize_int8(source, path, RECIPES[DEFAULT_RECIPE])
    config = model.config
    assert check_operators("int8", path, config, []).wrong == ()
    graph = onnx.load(path)
    for name in ("h.0.c_fc.weight", "wte.weight_t"):
        graph.graph.initializer.append(bundles.initializers(source)[name])
    onnx.save_model(graph, path)
    assert check_operators("int8", path, config, []).wrong == (
        "a float copy of h.0.c_fc.weight is stored",
        "a float copy of wte.weight_t is stored",
        "the token table is stored 2 times",
    )


def test_what_was_to_stay_in_float_and_is_not(tmp_path: Path) -> None:
    model, source = bundles.small_graph()
    path = tmp_path / "model.onnx"
    quantize_int8(source, path, RECIPES[DEFAULT_RECIPE])
    found = check_operators("int8", path, model.config, ["h.1.c_fc.weight"])
    assert found.wrong == ("h.1.c_fc.weight is quantized and was to stay in float",)
    assert found.quantized == len(matrix_names(model.config))


def test_a_figure_that_is_no_number_is_a_failure() -> None:
    good, bad = Fidelity(1.0, 0.0, 0.0, 1.0), Fidelity(1.0, float("nan"), 0.0, 1.0)
    for quality in (Comparison(1.0, good, bad), Comparison(1.0, bad, good), Comparison(1.0, bad)):
        assert failures("int8", Figures(quality=quality)) == ["int8 needs nan% more bits per byte (limit 1.0%)"]
    assert failures("int8", Figures(quality=Comparison(1.0, good, good))) == []
    assert failures("fp32", Figures(parity=float("nan"), same_greedy_tokens=True))
    assert failures("fp32", Figures(parity=0.0, same_greedy_tokens=False))
    assert failures("fp32", Figures(parity=0.0, same_greedy_tokens=True)) == []


def test_a_figure_that_was_not_measured_is_a_failure() -> None:
    assert failures("int8", Figures()) == ["int8 was not compared with the float model"]
    assert failures("fp32", Figures()) == ["fp32 was not compared with PyTorch"]
