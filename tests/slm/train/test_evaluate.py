"""Bits per byte, compared with distributions whose figure is known."""

from __future__ import annotations

import math
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from slm.checkpoint import load_checkpoint
from slm.console.errors import SlmxError
from slm.data.corpus import TokenStream, encode_stories
from slm.folder_kind import PRETRAINED
from slm.model import GPT
from slm.presets import GPTConfig
from slm.storage.hashing import sha256_of
from slm.train.evaluate import Evaluation, evaluate, read_stream
from slm.train.qat import as_exported, trained_for

SHARED = Path(__file__).parents[4] / "shared" / "data" / "tinystories-valid.txt"
CONFIG = GPTConfig(block_size=16, vocab_size=60, n_layer=1, n_head=1, n_embd=8)


def stream_of(ids: list[int], text_bytes: int) -> TokenStream:
    return TokenStream(np.array(ids, dtype=np.uint16), text_bytes, stories=1)


def zeroed_model() -> GPT:
    model = GPT(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


@pytest.mark.parametrize("bytes_per_token", [1, 3])
def test_a_model_that_knows_nothing_pays_the_whole_vocabulary(bytes_per_token: int) -> None:
    stream = stream_of([i % 60 for i in range(1000)], 1000 * bytes_per_token)
    assert evaluate(zeroed_model(), stream).bits_per_byte == pytest.approx(math.log2(60) / bytes_per_token, rel=1e-5)


def test_a_model_sure_of_what_comes_pays_by_its_odds() -> None:
    model = zeroed_model()
    with torch.no_grad():
        model.get_parameter("ln_f.bias")[0] = 1.0
        model.wte.weight[5, 0] = 4.0
    p = math.exp(4) / (math.exp(4) + 59)
    assert evaluate(model, stream_of([5] * 500, 500)).bits_per_byte == pytest.approx(-math.log2(p), rel=1e-5)
    assert evaluate(model, stream_of([6] * 500, 500)).bits_per_byte == pytest.approx(-math.log2((1 - p) / 59), rel=1e-5)


def test_the_figure_is_the_mean_over_all_whole_windows(
    tiny_checkpoint: Path, stories: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    stream = encode_stories(stories[:20], checkpoint.tokenizer)
    size = checkpoint.model.config.block_size
    nats, tokens = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(stream.ids) - size, size):
            ids = torch.from_numpy(stream.ids[start : start + size + 1].astype(np.int64))
            logs = checkpoint.model(ids[None, :-1])[0].log_softmax(-1)
            nats -= float(logs[torch.arange(size), ids[1:]].sum())
            tokens += size
    expected = nats / math.log(2) / tokens / (sum(len(story.encode()) for story in stories[:20]) / len(stream.ids))
    assert tokens > 20 * size
    for batch_size in (1, 7, 1000):
        monkeypatch.setattr("slm.train.evaluate.BATCH", batch_size)
        assert evaluate(checkpoint.model, stream).bits_per_byte == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_a_bar_on_a_terminal_and_a_line_in_a_log(is_terminal: bool) -> None:
    output = StringIO()
    console = Console(file=output, force_terminal=is_terminal, width=80)
    stream = stream_of([i % 60 for i in range(1000)], 1000)
    assert evaluate(zeroed_model(), stream, console=console) == evaluate(zeroed_model(), stream)
    if is_terminal:
        assert "evaluating" in output.getvalue()
        assert "100%" in output.getvalue()
    else:
        assert output.getvalue() == "evaluating the model on 992 tokens\n"


def test_a_loss_beyond_all_numbers_has_an_infinite_perplexity() -> None:
    assert Evaluation(800.0, 1.0, 1).perplexity == math.inf
    assert Evaluation(math.log(5), 1.0, 1).perplexity == pytest.approx(5)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_the_mode_comes_back(training: bool) -> None:
    torch.manual_seed(0)
    model = GPT(CONFIG, dropout=0.5).train(training)
    stream = stream_of([i * 7 % 60 for i in range(100)], 100)
    assert evaluate(model, stream).bits_per_byte == evaluate(model, stream).bits_per_byte
    assert model.training is training


def test_a_text_shorter_than_a_context_is_refused() -> None:
    with pytest.raises(SlmxError, match="16 tokens, shorter than one context of 16"):
        evaluate(zeroed_model(), stream_of([1] * 16, 16))
    assert evaluate(zeroed_model(), stream_of([1] * 17, 17)).bits_per_byte > 0


@pytest.mark.heavy
@pytest.mark.parametrize("preset", sorted(path.name for path in PRETRAINED.iterdir() if path.is_dir()))
@pytest.mark.skipif(not SHARED.is_file(), reason="the validation text is not part of this repository")
def test_the_shipped_checkpoints_reproduce_their_record(preset: str) -> None:
    checkpoint = load_checkpoint(PRETRAINED / preset)
    (source,) = (item for item in checkpoint.record["data"] if item["split"] == "valid")
    if source["sha256"] != sha256_of(SHARED):
        pytest.skip("the validation text here is not the recorded one")
    with as_exported(checkpoint.model, trained_for(checkpoint.record)):
        found = evaluate(checkpoint.model, read_stream([str(SHARED)], checkpoint))
    assert found.bits_per_byte == pytest.approx(checkpoint.record["best"]["bits_per_byte"], abs=2e-4)
