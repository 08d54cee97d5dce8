"""An exported bundle is complete, and its manifest is true."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import onnx
import pytest
import torch

import export.exporter
from export.checks.float_model import EvalText, FloatModel, eval_text
from export.formats.graph import read_weights
from runtimes.bundle.manifest import Manifest
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from slm.checkpoint import load_checkpoint, save_checkpoint
from slm.folder_kind import CHECKPOINT_LISTING
from slm.model import GPT
from slm.storage.atomic import atomic_folder
from slm.storage.disk import WORK_NAME
from slm.storage.file_names import MANIFEST_FILE
from slm.storage.hashing import sha256_of
from slm.tokenizers.tokenizer import Tokenizer, train_tokenizer
from slm.train.summary import SUMMARY_FILE
from tests import bundles
from tests.bundles import Slmx

pytestmark = pytest.mark.slow


def manifest_of(bundle: Path) -> Manifest:
    return Bundle.open(bundle).manifest


def test_a_bundle_is_complete_and_lists_itself(tiny_checkpoint: Path) -> None:
    bundle = bundles.tiny_bundle(tiny_checkpoint)
    manifest = manifest_of(bundle)
    there = bundles.snapshot(bundle)
    del there[MANIFEST_FILE]
    assert {name: entry.sha256 for name, entry in manifest.files.items()} == there
    assert all((bundle / name).stat().st_size == entry.bytes for name, entry in manifest.files.items())
    assert len({entry.what for entry in manifest.files.values()}) == len(there)
    assert {
        "onnx/model.onnx",
        "onnx/model_int8.onnx",
        "tokenizer.json",
        "tokenizer.tiktoken",
        "README.md",
        "config.json",
    } <= set(there)
    assert not list(bundle.parent.glob(f"{WORK_NAME}*"))


def test_the_manifest_tells_what_was_exported(tiny_checkpoint: Path) -> None:
    bundle = bundles.tiny_bundle(tiny_checkpoint)
    manifest = manifest_of(bundle)
    checkpoint = load_checkpoint(tiny_checkpoint)
    assert manifest.preset == "nano"
    assert manifest.shape == checkpoint.model.config
    assert manifest.shape.parameters == sum(p.numel() for p in checkpoint.model.parameters())
    assert manifest.checkpoint.sha256 == sha256_of(tiny_checkpoint / "model.safetensors")
    assert manifest.checkpoint.untrained is False
    assert manifest.versions["onnxruntime"] == version("onnxruntime")
    graph = onnx.load(bundle / "onnx/model.onnx")
    assert manifest.versions["ir"] == graph.ir_version
    assert manifest.versions["opset"] == next(entry.version for entry in graph.opset_import if entry.domain == "")
    assert manifest.judged_on.text == "64 stories sampled from the float model, seed 0"
    assert manifest.judged_on.tokens == 512
    assert list(manifest.variants) == ["fp32", "int8"]
    int8, parity = manifest.variants["int8"], manifest.variants["fp32"].figures.parity
    assert int8.recipe == "u8-tensor"
    assert int8.settings == {"signed": False, "per_channel": False, "reduce_range": False, "table": True}
    assert parity is not None
    assert 0 < parity <= bundles.PARITY_LIMIT


def test_the_figures_are_those_of_the_files(tiny_checkpoint: Path) -> None:
    bundle = bundles.tiny_bundle(tiny_checkpoint)
    fp32, int8 = (manifest_of(bundle).variants[name].figures for name in ("fp32", "int8"))
    checkpoint = load_checkpoint(tiny_checkpoint)
    float_model = FloatModel(
        checkpoint.model, eval_text(checkpoint.model, checkpoint.tokenizer, None), max_tokens=bundles.CHECKED_TOKENS
    )
    assert fp32.bits_per_byte == pytest.approx(float_model.float_bits_per_byte, abs=1e-4)
    comparison = float_model.compare(bundle / VARIANTS["int8"].file)
    assert int8.quality is not None
    for stored, measured in zip(int8.quality.ways, comparison.ways, strict=True):
        assert asdict(stored) == pytest.approx(asdict(measured), rel=1e-2, abs=1e-3)


def test_the_tokenizer_is_the_checkpoints(tiny_checkpoint: Path) -> None:
    bundle = bundles.tiny_bundle(tiny_checkpoint)
    for name in ("tokenizer.json", "tokenizer.tiktoken"):
        assert (bundle / name).read_bytes() == (tiny_checkpoint / name).read_bytes()


def test_the_model_card_shows_the_figures_of_the_manifest(tiny_checkpoint: Path) -> None:
    bundle = bundles.tiny_bundle(tiny_checkpoint)
    card, stored = (bundle / "README.md").read_text("utf-8"), json.loads((bundle / MANIFEST_FILE).read_text("utf-8"))
    parameters = sum(p.numel() for p in load_checkpoint(tiny_checkpoint).model.parameters())
    assert f"{parameters:,} parameters" in card
    assert f"512 tokens ({stored['judged_on']['text']})" in card
    fp32, int8 = (stored["variants"][name]["figures"] for name in ("fp32", "int8"))
    ways = int8["quality"]
    windows, decode = (
        f"{ways[way]['bits_per_byte']:.4f} {ways[way]['bpb_increase']:+.2%}" for way in ("windows", "decode")
    )
    sizes = [f"{(bundle / 'onnx' / name).stat().st_size:,}" for name in ("model.onnx", "model_int8.onnx")]
    parity = f"logits differ {fp32['parity']:.1e}"
    against = f"KL {ways['windows']['kl']:.1e}, {ways['windows']['greedy_agreement']:.1%} same"
    for row in (
        f"| fp32 | {sizes[0]} | {parity} | {fp32['bits_per_byte']:.4f} | as in windows |",
        f"| int8 | {sizes[1]} | {against} | {windows} | {decode} |",
    ):
        assert row in card.splitlines()
    assert str(Path.home()) not in card
    assert str(tiny_checkpoint) not in card


@pytest.mark.usefixtures("quick", "ready_graph")
def test_the_command_prints_the_folder_and_a_row_for_each_variant(slmx: Slmx, tiny_checkpoint: Path) -> None:
    ran = slmx("export", "--checkpoint", tiny_checkpoint, "--int8")
    assert ran.code == 0
    folder, heading, *rows, text = ran.stdout.splitlines()
    of = r"[\d,]+ tokens \(64 stories sampled from the float model, seed 0\)"
    assert re.fullmatch(f"bits: bits per byte of {of}; another text gives other figures", text)
    assert folder == str(Path("bundles", tiny_checkpoint.name))
    assert heading.split()[:2] == ["variant", "bytes"]
    assert [row.split()[:2] for row in rows] == [
        ["fp32", f"{Path(folder, 'onnx/model.onnx').stat().st_size:,}"],
        ["int8", f"{Path(folder, 'onnx/model_int8.onnx').stat().st_size:,}"],
    ]
    assert ran.stderr.splitlines()[0].startswith("fp32: ")
    assert Bundle.open(Path(folder)).variants == ["int8", "fp32"]


@pytest.mark.usefixtures("quick", "ready_graph")
def test_without_fp32_only_int8_is_in_the_bundle(slmx: Slmx, tiny_checkpoint: Path, corpus_file: Path) -> None:
    ran = slmx("export", "--checkpoint", tiny_checkpoint, "--int8", "--no-fp32", "--out", "b", "--text", corpus_file)
    assert ran.code == 0
    manifest = manifest_of(Path("b"))
    assert list(manifest.variants) == ["int8"]
    assert not (Path("b") / VARIANTS["fp32"].file).exists()
    assert Bundle.open(Path("b")).variants == ["int8"]
    assert manifest.judged_on.text == corpus_file.name
    assert json.loads(Path("b/genai_config.json").read_text("utf-8"))["model"]["decoder"]["filename"] == (
        VARIANTS["int8"].file
    )


@pytest.mark.usefixtures("quick", "ready_graph")
def test_each_file_is_hashed_once_for_the_manifest(
    slmx: Slmx, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    def noted(path: Path) -> str:
        hashed.append(path.name)
        return sha256_of(path)

    monkeypatch.setattr(export.exporter, "sha256_of", noted)
    assert slmx("export", "--checkpoint", tiny_checkpoint, "--out", "b").code == 0
    manifest = manifest_of(Path("b"))
    assert sorted(hashed) == sorted(Path(name).name for name in manifest.files)
    assert list(manifest.files) == sorted(manifest.files)


@pytest.mark.usefixtures("quick", "ready_graph")
def test_without_int8_only_fp32_is_in_the_bundle(slmx: Slmx, tiny_checkpoint: Path) -> None:
    assert slmx("export", "--checkpoint", tiny_checkpoint, "--out", "b").code == 0
    assert list(manifest_of(Path("b")).variants) == ["fp32"]
    assert [path.name for path in Path("b/onnx").iterdir()] == ["model.onnx"]


@pytest.mark.usefixtures("quick", "ready_graph")
def test_exports_of_one_checkpoint_are_the_same_bytes(slmx: Slmx, tiny_checkpoint: Path) -> None:
    for out in ("one/mine", "two/mine"):
        Path(out).parent.mkdir()
        assert slmx("export", "--checkpoint", tiny_checkpoint, "--int8", "--out", out).code == 0
    assert bundles.snapshot(Path("one")) == bundles.snapshot(Path("two"))


@pytest.mark.usefixtures("quick", "ready_graph")
def test_the_export_of_an_unfinished_run_says_how_far_it_is(slmx: Slmx, tiny_checkpoint: Path) -> None:
    run, loaded = Path("my run"), load_checkpoint(tiny_checkpoint)
    for name, done in (("best", 250), ("step-0001500", 1500)):
        (run / name).mkdir(parents=True)
        record = loaded.record | {"steps_done": done, "plan": {"seed": 1, "steps": 4000}}
        save_checkpoint(run / name, "nano", loaded.model, loaded.tokenizer, loaded.merges, record)
    said = "the run is unfinished, at step 1,500 of 4,000; slmx train --resume --out 'my run' continues it\n"
    for given, found, step in ((run, run / "best", "250"), (run / "step-0001500", run / "step-0001500", "1,500")):
        ran = slmx("export", "--checkpoint", given, "--out", "b", "--force")
        assert ran.stderr.startswith(f"checkpoint: {found}, of step {step}; {said}")
        assert f"| step of the checkpoint | {step} of 4,000 planned |" in (Path("b") / "README.md").read_text("utf-8")
    (run / SUMMARY_FILE).write_text("{}")
    assert slmx("export", "--checkpoint", run, "--out", "c").stderr.startswith(f"checkpoint: {run / 'best'}\n")


@pytest.mark.usefixtures("quick")
def test_the_best_checkpoint_of_a_run_may_be_exchanged_during_the_export(
    slmx: Slmx, tiny_checkpoint: Path, stories: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle is that of the weights that were read, and names no others."""
    best, first = bundles.copy_of(tiny_checkpoint, tmp_path / "run" / "best"), load_checkpoint(tiny_checkpoint)
    kept = bundles.copy_of(best, tmp_path / "kept")
    others, merges = train_tokenizer(stories[:50], 400)
    better = bundles.random_model(first.model.config)

    def exchanged(model: GPT, tokenizer: Tokenizer, path: Path | None) -> EvalText:
        with atomic_folder(best, CHECKPOINT_LISTING, replace=True) as folder:
            save_checkpoint(folder, "nano", better, others, merges, {"licence": "another"})
        return eval_text(model, tokenizer, path)

    monkeypatch.setattr(export.exporter, "eval_text", exchanged)
    assert slmx("export", "--checkpoint", best, "--out", "b").code == 0
    bundle = Bundle.open(Path("b"))
    assert bundle.manifest.checkpoint.sha256 == sha256_of(kept / "model.safetensors")
    assert bundle.manifest.checkpoint.licence == first.record["licence"]
    for name in ("tokenizer.json", "tokenizer.tiktoken"):
        assert (Path("b") / name).read_bytes() == (kept / name).read_bytes()
    weights = read_weights(bundle.model_file("fp32"), bundle.config).state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in first.model.state_dict().items())
    assert "not empty" in slmx.refuses("export", "--checkpoint", best, "--out", "b")
    assert "not made from" in slmx.refuses("verify", "b", "--quality", "--checkpoint", best)
    assert slmx("verify", "b", "--quality", "--checkpoint", kept).code == 0


@pytest.mark.usefixtures("quick", "ready_graph")
def test_a_text_that_changes_during_the_export_is_another_text(
    slmx: Slmx, tiny_checkpoint: Path, corpus_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Path("s.txt")
    text.write_bytes(corpus_file.read_bytes())

    def changed(model: GPT, tokenizer: Tokenizer, path: Path | None) -> EvalText:
        read = eval_text(model, tokenizer, path)
        text.write_bytes(corpus_file.read_bytes() * 2)
        return read

    monkeypatch.setattr(export.exporter, "eval_text", changed)
    command = ("export", "--checkpoint", tiny_checkpoint, "--out", "b", "--text", text)
    assert slmx(*command).code == 0
    assert "not empty" in slmx.refuses(*command)


@pytest.mark.usefixtures("quick", "ready_graph")
@pytest.mark.parametrize("option", ["--text"])
def test_a_text_of_any_name_is_measured_on_and_named(
    slmx: Slmx, tiny_checkpoint: Path, corpus_file: Path, option: str
) -> None:
    text = Path("é 100% #1 \x1b[31m.txt")
    text.write_bytes(corpus_file.read_bytes())
    assert slmx("export", "--checkpoint", tiny_checkpoint, "--out", "b", option, text).code == 0
    assert manifest_of(Path("b")).judged_on.text == "é 100% #1 ?[31m.txt"
    assert "é 100% #1 ?[31m.txt" in slmx("info", "b").stdout
