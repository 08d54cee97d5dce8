"""Checkpoint to bundle: complete and true, or refused with one line and nothing changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import onnx
import pytest

import export.checks.exclude
import export.checks.gates
import export.exporter
from export.checks.float_model import FloatModel, eval_text
from export.exporter import ExportSettings, export_bundle
from export.formats.quantize import RECIPES, quantize_int8, weight_names
from runtimes.bundle.manifest import MANIFEST_FILE, Manifest
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS, Gate
from slm.checkpoint import load_checkpoint
from slm.errors import SlmxError
from slm.hashing import sha256_of
from slm.presets import PRESETS
from tests import bundles
from tests.bundles import Slmx

DISK_FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.argv = ["slmx", *sys.argv[2:]]
from slm.cli import main
main()
"""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Exports read few tokens, and take their fp32 graph from one that was made before."""
    with bundles.brief_judge():
        yield


@pytest.fixture
def ready_graph(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports take the fp32 graph of the tiny checkpoint, which never changes, from the bundle made before."""
    made = bundles.tiny_bundle(tiny_checkpoint) / VARIANTS["fp32"].file
    monkeypatch.setattr(export.exporter, "export_onnx", lambda model, path: path.write_bytes(made.read_bytes()))


@pytest.fixture
def spoilt_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return bundles.copy_of(tiny_checkpoint, tmp_path / "checkpoint")


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
    assert not [path for path in bundle.parent.iterdir() if path != bundle]


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
        checkpoint.model, eval_text(checkpoint.model, checkpoint.tokenizer, None), max_tokens=bundles.JUDGED_TOKENS
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
    worst = max(ways["windows"]["bpb_increase"], ways["decode"]["bpb_increase"])
    sizes = [f"{(bundle / 'onnx' / name).stat().st_size:,}" for name in ("model.onnx", "model_int8.onnx")]
    against = f"KL {ways['decode']['kl']:.1e} nats, {ways['decode']['greedy_agreement']:.1%} same"
    for row in (
        f"| fp32 | {sizes[0]} | largest logit difference {fp32['parity']:.1e} | {fp32['bits_per_byte']:.4f} |",
        f"| int8 | {sizes[1]} | {against} | {ways['decode']['bits_per_byte']:.4f} ({worst:+.2%}) |",
    ):
        assert row in card.splitlines()
    assert str(Path.home()) not in card
    assert str(tiny_checkpoint) not in card


@pytest.mark.usefixtures("quick", "ready_graph")
def test_the_command_prints_the_folder_and_a_row_for_each_variant(slmx: Slmx, tiny_checkpoint: Path) -> None:
    ran = slmx("export", "--checkpoint", tiny_checkpoint, "--int8")
    assert ran.code == 0
    folder, heading, *rows = ran.stdout.splitlines()
    assert folder == str(Path("bundles/nano"))
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
def test_without_int8_only_fp32_is_in_the_bundle(slmx: Slmx, tiny_checkpoint: Path) -> None:
    assert slmx("export", "--checkpoint", tiny_checkpoint, "--out", "b").code == 0
    assert list(manifest_of(Path("b")).variants) == ["fp32"]
    assert [path.name for path in Path("b/onnx").iterdir()] == ["model.onnx"]


@pytest.mark.usefixtures("quick", "ready_graph")
def test_exports_of_one_checkpoint_are_the_same_bytes(slmx: Slmx, tiny_checkpoint: Path) -> None:
    for out in ("one", "two"):
        assert slmx("export", "--checkpoint", tiny_checkpoint, "--int8", "--out", out).code == 0
    assert bundles.snapshot(Path("one")) == bundles.snapshot(Path("two"))


def refuses(slmx: Slmx, *args: str | Path) -> str:
    """The line with which an export fails; what lies below the working folder must stay as it was."""
    before = bundles.snapshot(Path.cwd())
    folders = sorted(path for path in Path.cwd().rglob("*") if path.is_dir())
    line = slmx.refuses("export", *args)
    assert bundles.snapshot(Path.cwd()) == before
    assert sorted(path for path in Path.cwd().rglob("*") if path.is_dir()) == folders
    return line


def test_an_unknown_preset_lists_those_there_are(slmx: Slmx) -> None:
    assert refuses(slmx, "--preset", "pico") == f"unknown preset 'pico': choose one of {', '.join(PRESETS)}"


def test_a_preset_without_a_shipped_checkpoint_says_how_to_train_one(slmx: Slmx) -> None:
    line = refuses(slmx, "--preset", "small")
    assert "no small checkpoint ships with slmx" in line
    assert "slmx train --preset small" in line
    assert "--checkpoint DIR" in line


def test_an_unknown_recipe_lists_those_there_are(slmx: Slmx, tiny_checkpoint: Path) -> None:
    line = refuses(slmx, "--checkpoint", tiny_checkpoint, "--int8", "--int8-recipe", "int3")
    assert line == f"unknown int8 recipe 'int3': choose one of {', '.join(RECIPES)}"


def test_nothing_to_export(slmx: Slmx, tiny_checkpoint: Path) -> None:
    line = refuses(slmx, "--checkpoint", tiny_checkpoint, "--no-fp32")
    assert line == "nothing to export: --no-fp32 needs another variant, such as --int8"


def test_a_missing_checkpoint_says_how_to_make_one(slmx: Slmx) -> None:
    assert refuses(slmx, "--checkpoint", "nowhere") == (
        "nowhere: no slmx checkpoint here (no such file or folder); slmx train --text STORIES --out nowhere makes one"
    )


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.tiktoken", "tokenizer.json", "training.json"])
@pytest.mark.parametrize("damage", [lambda content: content[:-7], lambda content: b"#" + content[1:]])
def test_a_truncated_or_altered_checkpoint_names_the_file(
    slmx: Slmx, spoilt_checkpoint: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    path = spoilt_checkpoint / name
    path.write_bytes(damage(path.read_bytes()))
    line = refuses(slmx, "--checkpoint", spoilt_checkpoint)
    assert line == f"{path}: truncated or altered (SHA-256 differs); copy the folder again"


def test_a_checkpoint_without_one_of_its_files_names_it(slmx: Slmx, spoilt_checkpoint: Path) -> None:
    (spoilt_checkpoint / "model.safetensors").unlink()
    line = refuses(slmx, "--checkpoint", spoilt_checkpoint)
    assert line.startswith(f"{spoilt_checkpoint / 'model.safetensors'}: missing from the checkpoint")


def test_a_checkpoint_of_another_preset(slmx: Slmx, tiny_checkpoint: Path) -> None:
    line = refuses(slmx, "--preset", "micro", "--checkpoint", tiny_checkpoint)
    assert line == f"{tiny_checkpoint}: a checkpoint of nano, not micro; change --preset"


def test_a_bundle_in_the_way_needs_force(slmx: Slmx, tiny_checkpoint: Path) -> None:
    bundles.copy_of(bundles.tiny_bundle(tiny_checkpoint), Path("b"))
    line = refuses(slmx, "--checkpoint", tiny_checkpoint, "--out", "b")
    assert line == f"{Path('b').absolute()}: not empty; choose another --out, or --force to replace it"


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("name", ["thesis.txt", ".hidden", "onnx/notes.txt", MANIFEST_FILE])
def test_files_that_are_no_part_of_a_bundle_are_kept(
    slmx: Slmx, tiny_checkpoint: Path, name: str, force: list[str]
) -> None:
    if name == "onnx/notes.txt":
        bundles.copy_of(bundles.tiny_bundle(tiny_checkpoint), Path("b"))
    else:
        Path("b").mkdir()
    (Path("b") / name).write_text('{"manifest_version": 3, "name": "a browser extension"}', "utf-8")
    line = refuses(slmx, "--checkpoint", tiny_checkpoint, "--out", "b", *force)
    assert line == f"b: holds {name}, which is no part of a bundle; even --force keeps it: use another --out"


def test_a_file_where_the_folder_should_go(slmx: Slmx, tiny_checkpoint: Path) -> None:
    Path("b").write_text("mine", "utf-8")
    line = refuses(slmx, "--checkpoint", tiny_checkpoint, "--out", "b", "--force")
    assert line == f"{Path('b').absolute()}: a file stands where the folder should go"


@pytest.mark.usefixtures("quick", "ready_graph")
def test_force_replaces_a_bundle_whole(slmx: Slmx, tiny_checkpoint: Path) -> None:
    bundles.copy_of(bundles.tiny_bundle(tiny_checkpoint), Path("b"))
    assert slmx("export", "--checkpoint", tiny_checkpoint, "--out", "b", "--force").code == 0
    assert Bundle.open(Path("b")).variants == ["fp32"]
    assert not (Path("b") / VARIANTS["int8"].file).exists()
    assert [path.name for path in Path.cwd().iterdir()] == ["b"]


@pytest.mark.usefixtures("quick", "ready_graph")
def test_an_empty_folder_and_folders_that_are_not_there_are_filled(slmx: Slmx, tiny_checkpoint: Path) -> None:
    Path("empty").mkdir()
    for out in ("empty", "a/b/c"):
        assert slmx("export", "--checkpoint", tiny_checkpoint, "--out", out).code == 0
        assert Bundle.open(Path(out)).variants == ["fp32"]


@pytest.mark.usefixtures("ready_graph")
@pytest.mark.parametrize("stage", ["fp32: comparing", "judging", "int8", "pt2"])
def test_an_interrupted_export_leaves_the_old_bundle(tiny_checkpoint: Path, tmp_path: Path, stage: str) -> None:
    out = bundles.copy_of(bundles.tiny_bundle(tiny_checkpoint), tmp_path / "b")
    before = bundles.snapshot(tmp_path)

    def interrupt(line: str) -> None:
        if line.startswith(stage):
            raise KeyboardInterrupt

    variants = ("fp32", "int8", "int4", "fp16", "torchscript", "pt2")
    with bundles.brief_judge(), pytest.raises(KeyboardInterrupt):
        export_bundle(ExportSettings("nano", out, tiny_checkpoint, variants, force=True), interrupt)
    assert bundles.snapshot(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_full_disk_leaves_the_old_bundle(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = bundles.copy_of(bundles.tiny_bundle(tiny_checkpoint), tmp_path / "b")
    before = bundles.snapshot(tmp_path)
    limit = (out / VARIANTS["fp32"].file).stat().st_size - 1
    args = ["export", "--checkpoint", tiny_checkpoint, "--out", out, "--force", "--int8"]
    ran = subprocess.run(
        [sys.executable, "-c", DISK_FULL, str(limit), *map(str, args)],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert ran.stderr.splitlines()[-1].startswith(f"slmx: {out}: cannot write (")
    assert "Traceback" not in ran.stderr
    assert bundles.snapshot(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    Bundle.open(out)


@pytest.mark.usefixtures("quick", "ready_graph")
@pytest.mark.parametrize("error", [28, 122, 30, 13])
def test_a_disk_that_fails_at_the_end_leaves_the_old_bundle(
    slmx: Slmx, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    bundles.copy_of(bundles.tiny_bundle(tiny_checkpoint), Path("b"))

    def fail(*args: object) -> str:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(export.exporter, "model_card", fail)
    line = refuses(slmx, "--checkpoint", tiny_checkpoint, "--out", "b", "--force")
    assert line == f"{Path('b').absolute()}: cannot write ({os.strerror(error)}); nothing was changed there"


@pytest.mark.usefixtures("quick", "ready_graph")
def test_fp32_that_differs_from_pytorch_is_refused(
    slmx: Slmx, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for difference in (2e-4, float("nan")):
        monkeypatch.setattr(export.checks.gates, "parity", lambda *args, d=difference, **kwargs: d)
        line = refuses(slmx, "--checkpoint", tiny_checkpoint, "--out", "b")
        assert line == f"fp32 differs from PyTorch by {difference:.1e} (limit 1e-04); nothing was published"


@pytest.fixture(scope="module")
def losses(tiny_checkpoint: Path) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Worst loss of the tiny checkpoint by recipe, and by recipe and matrix quantized alone."""
    checkpoint = load_checkpoint(tiny_checkpoint)
    float_model = FloatModel(
        checkpoint.model, eval_text(checkpoint.model, checkpoint.tokenizer, None), max_tokens=bundles.JUDGED_TOKENS
    )
    fp32 = bundles.tiny_bundle(tiny_checkpoint) / VARIANTS["fp32"].file
    trial = bundles.folder("losses") / "trial.onnx"
    whole = {}
    for recipe in RECIPES.values():
        quantize_int8(fp32, trial, recipe)
        whole[recipe.name] = float_model.compare(trial).worst_bpb_increase
    alone: dict[str, dict[str, float]] = {}
    for name in (max(whole, key=lambda name: whole[name]), min(whole, key=lambda name: whole[name])):
        alone[name] = {}
        for matrix in weight_names(fp32):
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
    monkeypatch.setattr(export.checks.exclude, "SEARCH_TOKENS", bundles.JUDGED_TOKENS)
    bundles.copy_of(bundles.tiny_bundle(tiny_checkpoint), Path("b"))
    line = refuses(slmx, "--checkpoint", tiny_checkpoint, "--out", "b", "--force", "--int8", "--int8-recipe", recipe)
    worst = sorted(alone[recipe], key=lambda name: -alone[recipe][name])[:3]
    named = ", ".join(f"{name} ({alone[recipe][name]:+.1%} alone)" for name in worst)
    passing = " or ".join(name for name in RECIPES if whole[name] <= limit)
    assert line == (
        f"int8 ({recipe}) loses {whole[recipe]:.1%} bits per byte (limit {limit:.0%}); what hurts most: {named}; "
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
    monkeypatch.setattr(export.checks.exclude, "RECIPES", dict(list(RECIPES.items())[:2]))
    line = refuses(slmx, "--checkpoint", tiny_checkpoint, "--out", "b", "--int8")
    assert line.endswith("; try --int8-exclude auto; nothing was published")
    line = refuses(slmx, "--checkpoint", tiny_checkpoint, "--out", "b", "--int8", "--int8-exclude", "auto")
    assert line.endswith("no exclusion keeps the rise in bits per byte within -100%; export without --int8")


def test_int8_passes_only_when_its_loss_is_known_to_be_within_the_limit(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ready_graph: None
) -> None:
    monkeypatch.setattr(export.exporter._Export, "_int8_refusal", lambda *args: "refused")
    with bundles.brief_judge():
        for limit, passes in ((float("inf"), True), (float("nan"), False)):
            limit_int8(monkeypatch, limit)
            settings = ExportSettings("nano", tmp_path / str(limit), tiny_checkpoint, ("fp32", "int8"))
            if passes:
                export_bundle(settings, lambda line: None)
            else:
                with pytest.raises(SlmxError, match="refused"):
                    export_bundle(settings, lambda line: None)
