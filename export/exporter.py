"""Checkpoint in, bundle out: every variant is judged before the folder takes its name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from export.card import model_card
from export.configs import write_configs
from export.graph import IR_VERSION, OPSET, export_onnx
from export.judge import INT8_LOSS_LIMIT, PARITY_LIMIT, Judge, eval_text, parity
from export.quantize import DEFAULT_RECIPE, RECIPES, Int8Recipe, get_recipe, quantize_int8, weight_names
from runtimes.bundle import FORMAT_VERSION, MANIFEST_FILE, VARIANT_FILES, Bundle
from slm.checkpoint import PRETRAINED, Checkpoint, load_checkpoint
from slm.errors import SlmxError
from slm.folders import atomic_folder
from slm.hashing import sha256_of
from slm.presets import get_preset
from slm.tokenizer import JSON_FILE, RANKS_FILE

WHAT = {
    "config.json": "shape, for Hugging Face transformers",
    "generation_config.json": "generation defaults, for Hugging Face transformers",
    "tokenizer_config.json": "tokenizer settings, for Hugging Face transformers",
    "genai_config.json": "graph description, for onnxruntime-genai",
    JSON_FILE: "tokenizer, for Hugging Face tokenizers",
    RANKS_FILE: "tokenizer ranks, for tiktoken",
    "README.md": "model card",
    VARIANT_FILES["fp32"]: "float32 graph with KV cache",
    VARIANT_FILES["int8"]: "dynamic int8 graph with KV cache",
}
PACKAGES = ("slmx", "torch", "onnx", "onnxruntime", "onnxscript")

Say = Callable[[str], None]


@dataclass(frozen=True)
class ExportSettings:
    """What to export and where; `checkpoint` None takes the one that ships with slmx."""

    preset: str
    out: Path
    checkpoint: Path | None = None
    fp32: bool = True
    int8: bool = False
    int8_recipe: str = DEFAULT_RECIPE
    eval_text: Path | None = None
    force: bool = False


def export_bundle(settings: ExportSettings, say: Say) -> dict[str, Any]:
    """Write a bundle and return its manifest; `say` gets a line of progress before each stage.

    Raises SlmxError, leaving what was at `out`, for an unusable checkpoint, a folder in the way, a full
    disk, or a variant that loses more than its limit.
    """
    get_preset(settings.preset)
    recipe = get_recipe(settings.int8_recipe)
    if not (settings.fp32 or settings.int8):
        raise SlmxError("nothing to export: --no-fp32 needs --int8")
    foreign = _foreign_file(settings.out)
    if foreign is not None:
        raise SlmxError(
            f"{settings.out}: holds {foreign}, which is no part of a bundle; even --force keeps it: use another --out"
        )
    checkpoint = load_checkpoint(_checkpoint_folder(settings))
    if checkpoint.preset != settings.preset:
        raise SlmxError(
            f"{checkpoint.folder}: a checkpoint of {checkpoint.preset}, not {settings.preset}; change --preset"
        )
    with atomic_folder(settings.out, replace=settings.force) as folder:
        manifest = _write(folder, checkpoint, settings, recipe, say)
        Bundle.open(folder)
    return manifest


def _foreign_file(out: Path) -> str | None:
    """A file that no manifest in the folder lists, if there is one: only bundles may be replaced."""
    try:
        listed = {MANIFEST_FILE, *json.loads((out / MANIFEST_FILE).read_text("utf-8"))["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        listed = set()
    there = (path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir())
    return next((name for name in there if name not in listed), None)


def _checkpoint_folder(settings: ExportSettings) -> Path:
    if settings.checkpoint is not None:
        return settings.checkpoint
    shipped = PRETRAINED / settings.preset
    if not shipped.is_dir():
        raise SlmxError(
            f"no {settings.preset} checkpoint ships with slmx: train one (slmx train --preset {settings.preset} "
            "--data FILE --out DIR) and name it with --checkpoint DIR"
        )
    return shipped


def _write(
    folder: Path, checkpoint: Checkpoint, settings: ExportSettings, recipe: Int8Recipe, say: Say
) -> dict[str, Any]:
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    (folder / "onnx").mkdir()
    paths = {name: folder / file for name, file in VARIANT_FILES.items()}
    variants: dict[str, dict[str, Any]] = {}
    say("fp32: exporting the graph")
    export_onnx(model, paths["fp32"])
    say("fp32: comparing with PyTorch")
    difference = parity(model, paths["fp32"])
    if not difference <= PARITY_LIMIT:
        raise SlmxError(
            f"fp32 differs from PyTorch by {difference:.1e} (limit {PARITY_LIMIT:.0e}); nothing was published"
        )
    say("judging: PyTorch and fp32 read the text")
    judge = Judge(model, eval_text(model, tokenizer, settings.eval_text))
    variants["fp32"] = {
        "file": VARIANT_FILES["fp32"],
        "parity": difference,
        "bits_per_byte": judge.windows(paths["fp32"]).bits_per_byte,
    }
    if settings.int8:
        say(f"int8: quantizing ({recipe.name}) and reading the text, whole and token by token")
        quantize_int8(paths["fp32"], paths["int8"], recipe)
        verdict = judge.verdict(paths["int8"])
        if not verdict.worst_loss <= INT8_LOSS_LIMIT:
            say(
                f"int8: loses {verdict.worst_loss:.1%}, too much; looking for the matrix that hurts and what would pass"
            )
            raise SlmxError(_refusal(judge, paths["fp32"], recipe, verdict.worst_loss))
        variants["int8"] = {
            "file": VARIANT_FILES["int8"],
            "recipe": recipe.name,
            "settings": asdict(recipe),
            "quality": verdict.as_dict(),
        }
    if not settings.fp32:
        paths["fp32"].unlink()
        del variants["fp32"]
    for name in (RANKS_FILE, JSON_FILE):
        shutil.copyfile(checkpoint.folder / name, folder / name)
    main = "int8" if settings.int8 else "fp32"
    write_configs(folder, model.config, tokenizer.end_of_text, VARIANT_FILES[main])
    manifest: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "preset": checkpoint.preset,
        "target": "any",
        "shape": asdict(model.config),
        "parameters": model.config.parameters,
        "checkpoint": {"sha256": sha256_of(checkpoint.folder / "model.safetensors")},
        "judged_on": {"text": judge.text.source, "tokens": judge.tokens},
        "variants": variants,
        "versions": {name: version(name) for name in PACKAGES} | {"opset": OPSET, "ir": IR_VERSION},
        "files": _list_files(folder),
    }
    (folder / "README.md").write_text(model_card(manifest, checkpoint.record), "utf-8")
    manifest["files"] = _list_files(folder)
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")
    return manifest


def _list_files(folder: Path) -> dict[str, dict[str, Any]]:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {
        name: {"what": WHAT[name], "bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)}
        for name in names
    }


def _refusal(judge: Judge, fp32: Path, recipe: Int8Recipe, loss: float) -> str:
    """Why int8 was refused: the matrix that hurts most when quantized alone, and the recipes that would pass."""
    trial = fp32.with_name("trial.onnx")
    alone: dict[str, float] = {}
    for name in weight_names(fp32):
        quantize_int8(fp32, trial, recipe, only={name})
        alone[name] = judge.verdict(trial).worst_loss
    worst = max(alone, key=lambda name: alone[name])
    passing = []
    for other in RECIPES.values():
        quantize_int8(fp32, trial, other)
        if judge.verdict(trial).worst_loss <= INT8_LOSS_LIMIT:
            passing.append(other.name)
    advice = (
        f"--int8-recipe {' or '.join(passing)} would pass"
        if passing
        else "no other recipe passes; export without --int8"
    )
    return (
        f"int8 ({recipe.name}) loses {loss:.1%} bits per byte (limit {INT8_LOSS_LIMIT:.0%}); "
        f"{worst} hurts most ({alone[worst]:+.1%} alone); {advice}; nothing was published"
    )
