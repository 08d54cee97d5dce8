"""One checkpoint, one continuation: PyTorch and onnxruntime, cached and uncached, write the same greedy tokens.

`tests/golden.json` pins what the shipped nano writes in float32; after training it anew:

    python -m tests.test_golden

int8 is not pinned: its activations are rounded, so a processor that adds in another order may prefer another
token. It must keep to its rule instead: given the pinned tokens as its own past, it would have chosen most of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from export.checks.parity import greedy_tokens
from export.exporter import ExportSettings, export_bundle
from export.formats.graph import export_onnx
from runtimes import PACKAGED_BUNDLE, load
from runtimes.bundle.store import MANIFEST_FILE, VARIANT_FILES, Bundle
from runtimes.engine.session import Session
from slm import checkpoint as checkpoints
from slm.checkpoint import Checkpoint, load_checkpoint
from slm.hashing import sha256_of
from slm.model import generate_greedy
from slm.presets import get_preset
from tests import bundles

GOLDEN_FILE = Path(__file__).with_name("golden.json")
PROMPT = "Once upon a time"
GOLDEN_TOKENS = 48
INT8_AGREEMENT = 0.8
FIGURE_TOLERANCE = 2e-3
PACKAGE_BYTES = 3_000_000


def prompt_ids(checkpoint: Checkpoint, prompt: str) -> list[int]:
    return [checkpoint.tokenizer.end_of_text, *checkpoint.tokenizer.encode(prompt)]


def pytorch_greedy(checkpoint: Checkpoint, prompt: str, max_tokens: int, use_cache: bool = True) -> list[int]:
    return generate_greedy(checkpoint.model, prompt_ids(checkpoint, prompt), max_tokens, use_cache)


@pytest.fixture(scope="module")
def shipped() -> Checkpoint:
    return load_checkpoint(checkpoints.PRETRAINED / "nano")


@pytest.fixture(scope="module")
def shipped_graph(shipped: Checkpoint) -> Path:
    path = bundles.folder("shipped") / "model.onnx"
    export_onnx(shipped.model, path)
    return path


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(GOLDEN_FILE.read_text("utf-8"))
    return stored


@pytest.fixture(scope="module")
def packaged() -> Bundle:
    return Bundle.open(PACKAGED_BUNDLE)


@pytest.mark.parametrize("prompt", [PROMPT, "", "The big red bear", "Zoë said: 12"])
def test_the_tiny_one_writes_the_same_everywhere(tiny_checkpoint: Path, prompt: str) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    ids = prompt_ids(checkpoint, prompt)
    room = checkpoint.model.config.block_size - len(ids) + 1
    expected = pytorch_greedy(checkpoint, prompt, room, use_cache=False)
    assert len(expected) == room
    assert pytorch_greedy(checkpoint, prompt, room) == expected
    session = bundles.session(bundles.tiny_bundle(tiny_checkpoint))
    assert greedy_tokens(session, ids, room) == expected
    uncached = list(ids)
    for _ in range(room):
        session.rewind(0)
        uncached.append(int(session.prefill(uncached).argmax()))
    assert uncached[len(ids) :] == expected


def test_the_shipped_one_writes_what_is_pinned_in_pytorch(shipped: Checkpoint, golden: dict[str, Any]) -> None:
    assert len(golden["ids"]) == GOLDEN_TOKENS
    for use_cache in (True, False):
        assert pytorch_greedy(shipped, golden["prompt"], GOLDEN_TOKENS, use_cache) == golden["ids"]


def test_the_shipped_one_writes_what_is_pinned_in_onnxruntime(
    shipped: Checkpoint, shipped_graph: Path, golden: dict[str, Any]
) -> None:
    ids = prompt_ids(shipped, golden["prompt"])
    session = Session.open(shipped_graph, shipped.model.config)
    assert greedy_tokens(session, ids, GOLDEN_TOKENS) == golden["ids"]
    session.rewind(0)
    logits = session.score([*ids, *golden["ids"][:-1]])
    assert logits[len(ids) - 1 :].argmax(-1).tolist() == golden["ids"]


def test_the_packaged_int8_would_have_chosen_most_of_what_is_pinned(packaged: Bundle, golden: dict[str, Any]) -> None:
    tokenizer = packaged.tokenizer()
    session = Session.open(packaged.model_path("int8"), packaged.config)
    logits = session.prefill([tokenizer.end_of_text, *tokenizer.encode(golden["prompt"])])
    chosen = []
    for token in golden["ids"]:
        chosen.append(int(logits.argmax()))
        logits = session.step(token)
    assert np.mean(np.equal(chosen, golden["ids"])) >= INT8_AGREEMENT


def test_the_packaged_bundle_is_of_the_shipped_checkpoint_and_small(packaged: Bundle, shipped: Checkpoint) -> None:
    manifest = packaged.manifest
    assert manifest["checkpoint"]["sha256"] == sha256_of(shipped.folder / "model.safetensors")
    assert manifest["preset"] == shipped.preset == "nano"
    assert packaged.config == shipped.model.config == get_preset("nano").config
    assert packaged.variants == ["int8"]
    assert packaged.tokenizer().ranks == shipped.tokenizer.ranks
    files = [path for path in PACKAGED_BUNDLE.rglob("*") if path.is_file()]
    listed = {PACKAGED_BUNDLE / name for name in manifest["files"]}
    assert set(files) == {*listed, PACKAGED_BUNDLE / MANIFEST_FILE}
    assert sum(path.stat().st_size for path in files) <= PACKAGE_BYTES


def test_the_packaged_bundle_can_be_made_again(packaged: Bundle, tmp_path: Path) -> None:
    _, again = export_bundle(ExportSettings("nano", tmp_path / "b", variants=("int8",)), lambda line: None)
    stored, remade = (
        bundles.initializers(folder / VARIANT_FILES["int8"]) for folder in (packaged.folder, tmp_path / "b")
    )
    assert list(stored) == list(remade)
    for name, tensor in stored.items():
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), numpy_helper.to_array(remade[name]), name)
    manifest = packaged.manifest
    for key in ("preset", "shape", "parameters", "checkpoint"):
        assert manifest[key] == again[key]
    assert manifest["judged_on"]["text"] == again["judged_on"]["text"]
    before, after = manifest["variants"]["int8"], again["variants"]["int8"]
    assert (before["recipe"], before["settings"]) == (after["recipe"], after["settings"])
    for way in ("windows", "decode"):
        figures = before["quality"][way], after["quality"][way]
        assert figures[0]["bits_per_byte"] == pytest.approx(figures[1]["bits_per_byte"], rel=FIGURE_TOLERANCE)
    for name in set(manifest["files"]) - {"README.md", VARIANT_FILES["int8"]}:
        assert (packaged.folder / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_the_packaged_bundle_tells_a_story() -> None:
    story = load().generate(PROMPT, max_tokens=60, temperature=0.0)
    assert story.full_text.startswith(PROMPT)
    words = story.full_text.split()
    assert len(words) > 30
    assert sum(word.strip(".,!?\"'").isalpha() for word in words) > 0.9 * len(words)


def main() -> None:
    """Pin what the shipped nano writes now."""
    ids = pytorch_greedy(load_checkpoint(checkpoints.PRETRAINED / "nano"), PROMPT, GOLDEN_TOKENS)
    GOLDEN_FILE.write_text(json.dumps({"prompt": PROMPT, "ids": ids}) + "\n", "utf-8")


if __name__ == "__main__":
    main()
