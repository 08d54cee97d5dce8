"""The checks that a variant must pass before it is published, and again whenever a bundle is verified."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from export.checks.float_model import FloatModel, eval_text
from export.checks.operators import check_operators
from export.checks.parity import greedy_tokens, open_forward, parity, same_greedy_tokens
from export.formats.graph import read_weights
from runtimes.bundle.store import MANIFEST_FILE, Bundle
from runtimes.engine.session import Session
from slm.checkpoint import PRETRAINED, load_checkpoint
from slm.errors import SlmxError
from slm.hashing import sha256_of
from slm.model import GPT
from slm.presets import GPTConfig
from slm.untrained import untrained_checkpoint

PACKAGES = ("slmx", "torch", "onnx", "onnxruntime", "onnxscript")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Gate:
    """What a variant must reach: a largest logit difference, or a largest relative loss in bits per byte."""

    parity: float | None = None
    bpb_increase: float | None = None
    decode: bool = False


GATES = {
    "fp32": Gate(parity=1e-4),
    "portable": Gate(parity=1e-4),
    "torchscript": Gate(parity=1e-5),
    "pt2": Gate(parity=1e-5),
    "int8": Gate(bpb_increase=0.01, decode=True),
    "int4": Gate(bpb_increase=0.05, decode=True),
    "fp16": Gate(bpb_increase=0.001),
    "mobile": Gate(bpb_increase=0.01),
}


def check_variant(name: str, path: Path, float_model: FloatModel, source: Path | None = None) -> dict[str, Any]:
    """Measure one variant as its gate asks: parity and greedy tokens, or a reading of the text.

    `source` is the ONNX file that a converted one (mobile) must agree with, token for token.
    """
    gate, model = GATES[name], float_model.model
    figures: dict[str, Any] = {}
    if gate.parity is not None:
        forward = open_forward(name, path, model.config)
        figures["parity"] = parity(model, forward, chunked_batches=name != "fp32")
        figures["same_greedy_tokens"] = same_greedy_tokens(model, name, path)
    if name == "fp32":
        figures["bits_per_byte"] = float_model.compare(path, decode=False).windows.bits_per_byte
    if gate.bpb_increase is not None:
        figures["quality"] = float_model.compare(path, gate.decode).as_dict()
    if source is not None:
        figures["same_greedy_tokens"] = _agree(path, source, model.config)
    return figures


def _agree(one: Path, other: Path, config: GPTConfig) -> bool:
    prompt = np.random.default_rng(1).integers(0, config.vocab_size, min(8, config.block_size // 2)).tolist()
    count = config.block_size - len(prompt)
    return greedy_tokens(Session.open(one, config), prompt, count) == greedy_tokens(
        Session.open(other, config), prompt, count
    )


def worst_bpb_increase(figures: dict[str, Any]) -> float:
    """The larger relative loss in bits per byte of the ways in which a variant read the text; NaN if one is."""
    quality = figures["quality"]
    return float(np.max([quality[way]["bpb_increase"] for way in ("windows", "decode") if quality[way] is not None]))


def failures(name: str, figures: dict[str, Any]) -> list[str]:
    """What keeps a variant from passing its gate, in words; empty when it passes."""
    gate, found = GATES[name], list(figures.get("operators", {}).get("wrong", []))
    if gate.parity is not None and not figures["parity"] <= gate.parity:
        found.append(f"{name} differs from PyTorch by {figures['parity']:.1e} (limit {gate.parity:.0e})")
    if gate.bpb_increase is not None and not worst_bpb_increase(figures) <= gate.bpb_increase:
        found.append(f"{name} loses {worst_bpb_increase(figures):.1%} bits per byte (limit {gate.bpb_increase:.1%})")
    if not figures.get("same_greedy_tokens", True):
        found.append(f"{name} writes other greedy tokens than the model it was made from")
    return found


def verify_bundle(folder: Path, checkpoint: Path | None, text: Path | None, say: Say) -> dict[str, Any]:
    """Check every variant of a bundle again, against its checkpoint; the figures by variant.

    The float model is `checkpoint`, or the shipped one that the bundle was made from, or else the weights of its
    fp32 graph. The result is written into the manifest as `verified`. Raises SlmxError for a bundle that fails
    its hashes, or a checkpoint that is not the one it was made from.
    """
    bundle = Bundle.open(folder)
    model, source = _float_model(bundle, checkpoint)
    say(f"float model: {source}")
    float_model = FloatModel(model, eval_text(model, bundle.tokenizer(), text))
    found: dict[str, Any] = {}
    for name, entry in bundle.manifest["variants"].items():
        say(f"{name}: checking")
        path = folder / entry["file"]
        made_of = bundle.manifest["variants"].get(entry.get("of"), {}).get("file")
        figures = check_variant(name, path, float_model, folder / made_of if made_of else None)
        if path.suffix == ".onnx":
            figures["operators"] = check_operators(name, path, bundle.config, entry.get("kept_float", []))
        found[name] = {"file": entry["file"], **figures, "failures": failures(name, figures)}
    verified = {
        "float_model": source,
        "judged_on": {"text": float_model.text.source, "tokens": float_model.tokens},
        "versions": {name: version(name) for name in PACKAGES},
        "variants": found,
    }
    try:
        _write(folder / MANIFEST_FILE, bundle.manifest | {"verified": verified})
    except OSError as error:
        say(f"{folder / MANIFEST_FILE}: not updated ({error.strerror})")
    return bundle.manifest | {"verified": verified}


def _float_model(bundle: Bundle, checkpoint: Path | None) -> tuple[GPT, str]:
    made_from = bundle.manifest["checkpoint"]
    if checkpoint is None and made_from["untrained"]:
        with tempfile.TemporaryDirectory() as name:
            return load_checkpoint(untrained_checkpoint(bundle.manifest["preset"], Path(name))).model, "random weights"
    shipped = PRETRAINED / bundle.manifest["preset"]
    if checkpoint is None and shipped.is_dir():
        loaded = load_checkpoint(shipped)
        if sha256_of(loaded.folder / "model.safetensors") == made_from["sha256"]:
            return loaded.model, "the checkpoint that ships with slmx"
    if checkpoint is None:
        if "fp32" not in bundle.manifest["variants"]:
            raise SlmxError(f"{bundle.folder}: no fp32 variant to compare with; name the model with --checkpoint DIR")
        return read_weights(bundle.model_path("fp32"), bundle.config), "the weights of its fp32 graph"
    loaded = load_checkpoint(checkpoint)
    if sha256_of(loaded.folder / "model.safetensors") != made_from["sha256"]:
        raise SlmxError(f"{bundle.folder}: not made from {checkpoint}; name its own checkpoint, or none")
    return loaded.model, str(checkpoint)


def _write(path: Path, manifest: dict[str, Any]) -> None:
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
        file.write(json.dumps(manifest, indent=1) + "\n")
    mode = path.stat().st_mode
    os.chmod(file.name, mode)
    os.replace(file.name, path)
