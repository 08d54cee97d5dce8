"""The float model compared with itself and with damaged and quantized copies, and the text for the comparison."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from export.checks.fidelity import Reference, measure_fidelity
from export.checks.float_model import EvalText, FloatModel, eval_text
from export.checks.greedy import greedy_tokens
from export.formats.quantize import quantize_int8
from export.formats.recipes import DEFAULT_RECIPE, RECIPES
from runtimes.bundle.figures import Comparison, Fidelity
from runtimes.bundle.store import Bundle
from runtimes.engine.arrays import FloatArray
from runtimes.engine.loss import log_softmax
from runtimes.engine.session import Session, float_threads
from slm.checkpoint import Checkpoint, load_checkpoint
from slm.console.errors import SlmxError
from slm.data.corpus import TokenStream, encode_stories
from slm.data.sources import read_stories
from slm.model import generate_greedy
from slm.presets import GPTConfig
from slm.train.evaluate import Evaluation, total_loss
from slm.train.sample_text import sample_stories
from tests import bundles

TOKENS = 256


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="module")
def text(checkpoint: Checkpoint, corpus_file: Path) -> EvalText:
    return eval_text(checkpoint.model, checkpoint.tokenizer, corpus_file)


@pytest.fixture(scope="module")
def float_model(checkpoint: Checkpoint, text: EvalText) -> FloatModel:
    return FloatModel(checkpoint.model, text, TOKENS)


@pytest.fixture(scope="module")
def fp32(tiny_checkpoint: Path) -> Path:
    return Bundle.open(bundles.tiny_bundle(tiny_checkpoint)).model_path("fp32")


def damaged(source: Path, target: Path, noise: float) -> Path:
    """A graph with noise in its matrices: `noise` times their own standard deviation."""
    model = onnx.load(source)
    random = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim == 2:
            spoilt = values + random.normal(0, noise * values.std(), values.shape)
            tensor.CopyFrom(numpy_helper.from_array(spoilt.astype(np.float32), tensor.name))
    onnx.save_model(model, target)
    return target


def ways(comparison: Comparison) -> tuple[Fidelity, Fidelity]:
    assert comparison.decode is not None
    return comparison.windows, comparison.decode


def test_the_float_graph_loses_nothing(float_model: FloatModel, fp32: Path) -> None:
    comparison = float_model.compare(fp32)
    for fidelity in ways(comparison):
        assert abs(fidelity.bpb_increase) <= 1e-5
        assert fidelity.greedy_agreement == 1.0
        assert 0 <= fidelity.kl <= 1e-6
        assert fidelity.bits_per_byte == pytest.approx(float_model.float_bits_per_byte, rel=1e-4)
    assert abs(comparison.worst_bpb_increase) <= 1e-5


def test_the_float_figure_is_that_of_the_training_side(
    float_model: FloatModel, checkpoint: Checkpoint, text: EvalText
) -> None:
    windows = TOKENS // checkpoint.model.config.block_size
    assert float_model.tokens == TOKENS
    nats = total_loss(checkpoint.model, *text.stream.windows(checkpoint.model.config.block_size, windows))
    expected = Evaluation.of(nats, TOKENS, text.stream).bits_per_byte
    assert float_model.float_bits_per_byte == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("noise", [0.5, 3.0])
def test_a_damaged_model_loses_much(float_model: FloatModel, fp32: Path, tmp_path: Path, noise: float) -> None:
    comparison = float_model.compare(damaged(fp32, tmp_path / "model.onnx", noise))
    for fidelity in ways(comparison):
        assert fidelity.kl > 0.01
        assert fidelity.greedy_agreement < 0.95
    assert comparison.worst_bpb_increase == max(way.bpb_increase for way in ways(comparison))
    if noise > 1:
        assert comparison.worst_bpb_increase > 0.05


def test_int8_loses_a_little_and_reading_token_by_token_is_another_figure(
    float_model: FloatModel, fp32: Path, tmp_path: Path
) -> None:
    quantize_int8(fp32, tmp_path / "model.onnx", RECIPES[DEFAULT_RECIPE])
    comparison = float_model.compare(tmp_path / "model.onnx")
    assert abs(comparison.worst_bpb_increase) < 0.02
    assert comparison.windows.kl > 0
    assert comparison.decode is not None
    assert comparison.decode.kl > 0
    assert comparison.windows != comparison.decode


def test_logits_that_are_no_numbers_are_refused(float_model: FloatModel, fp32: Path, tmp_path: Path) -> None:
    with pytest.raises(SlmxError, match=r"^int4: its logits are NaN or infinite; use another variant$"):
        float_model.compare(damaged(fp32, tmp_path / "model.onnx", float("nan")), name="int4")


class Recorded:
    """A fake session that returns known logits for all ids."""

    def __init__(self, logits: FloatArray) -> None:
        self.logits, self.length = logits, 0
        self.read: list[list[int]] = []

    def reset(self) -> None:
        self.length = 0

    def score(self, ids: Sequence[int]) -> FloatArray:
        self.read.append(list(ids))
        return self.logits

    def step(self, token: int) -> FloatArray:
        self.read.append([token])
        self.length += 1
        row: FloatArray = self.logits[self.length - 1]
        return row


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.0, 1e-4, 1.0, 30.0]), decode=st.booleans())
def test_figures_are_those_of_their_definitions(seed: int, spread: float, decode: bool) -> None:
    random = np.random.default_rng(seed)
    theirs = random.normal(0, 2, (6, 11)).astype(np.float32)
    ours = (theirs + random.normal(0, 1, theirs.shape) * spread).astype(np.float32)
    inputs, targets = random.integers(0, 11, (2, 1, 6))
    reference = Reference(inputs, targets, lambda row: theirs, bytes_per_token=3.5)
    float_figure = reference.bits_per_byte(reference.nats())
    session = Recorded(ours)
    fidelity = measure_fidelity(session, reference, float_figure, decode)  # type: ignore[arg-type]
    whole = inputs[0].tolist()
    assert session.read == ([[i] for i in whole] if decode else [whole])
    p = torch.from_numpy(theirs).double().log_softmax(-1)
    q = torch.from_numpy(ours).double().log_softmax(-1)
    bits = -float(q[range(6), targets[0]].mean()) / np.log(2) / 3.5
    assert fidelity.bits_per_byte == pytest.approx(bits, rel=1e-4, abs=1e-5)
    assert fidelity.bpb_increase == pytest.approx(bits / float_figure - 1, abs=1e-4)
    assert fidelity.kl == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-4, abs=1e-6)
    assert fidelity.kl >= 0
    assert fidelity.greedy_agreement == pytest.approx(np.mean(ours.argmax(1) == theirs.argmax(1)), abs=1e-5)
    np.testing.assert_allclose(log_softmax(ours), q.numpy(), rtol=1e-5, atol=1e-4)


def test_infinite_logits_are_refused() -> None:
    theirs = np.zeros((2, 3), np.float32)
    reference = Reference(
        np.zeros((1, 2), np.int64), np.zeros((1, 2), np.int64), lambda row: theirs, bytes_per_token=1.0
    )
    for value in (np.nan, np.inf):
        session = Recorded(np.full((2, 3), value, np.float32))
        with pytest.raises(SlmxError, match="NaN or infinite"):
            measure_fidelity(session, reference, 1.0, False)  # type: ignore[arg-type]


def test_a_file_to_measure_on_is_named_and_read(checkpoint: Checkpoint, corpus_file: Path, text: EvalText) -> None:
    assert text.source == corpus_file.name
    expected = encode_stories(list(read_stories([corpus_file])), checkpoint.tokenizer)
    np.testing.assert_array_equal(text.stream.ids[:], expected.ids[:])
    assert text.stream.text_bytes == expected.text_bytes


def test_sampled_text_is_the_same_for_a_seed_and_says_what_it_is(checkpoint: Checkpoint) -> None:
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    text = eval_text(model, tokenizer, None)
    assert text.source == "64 stories sampled from the float model, seed 0"
    assert text.stream.stories == 64
    stories = sample_stories(model, tokenizer, 0)
    assert encode_stories(stories, tokenizer).ids[:].tolist() == text.stream.ids[:].tolist()
    assert sample_stories(model, tokenizer, 1) != stories
    assert all("<|endoftext|>" not in story for story in stories)


def test_sampled_text_follows_the_model(checkpoint: Checkpoint) -> None:
    model, tokenizer = copy.deepcopy(checkpoint.model), checkpoint.tokenizer
    with torch.no_grad():
        model.ln_f.weight.mul_(1e5)
        model.get_parameter("ln_f.bias").mul_(1e5)
    sure = generate_greedy(model, [tokenizer.end_of_text], model.config.block_size - 1)
    end = sure.index(tokenizer.end_of_text) if tokenizer.end_of_text in sure else len(sure)
    assert set(sample_stories(model, tokenizer, 0)) == {tokenizer.decode(sure[:end])}


def test_a_text_shorter_than_one_context_is_refused(checkpoint: Checkpoint) -> None:
    short = EvalText(TokenStream(np.zeros(20, np.uint16), 60, 1), "short")
    with pytest.raises(SlmxError, match="shorter than one context"):
        FloatModel(checkpoint.model, short)


def test_at_least_one_window_is_read(checkpoint: Checkpoint, text: EvalText) -> None:
    assert FloatModel(checkpoint.model, text, max_tokens=1).tokens == checkpoint.model.config.block_size


def test_greedy_tokens_start_afresh_and_are_those_of_pytorch(checkpoint: Checkpoint, fp32: Path) -> None:
    config: GPTConfig = checkpoint.model.config
    session = Session.open(fp32, config)
    prompt = [checkpoint.tokenizer.end_of_text, 5, 6]
    for count in (1, 9, config.block_size - len(prompt) + 1):
        expected = generate_greedy(checkpoint.model, prompt, count)
        assert greedy_tokens(session, prompt, count) == expected


def test_the_worse_way_of_reading_counts_and_so_does_one_that_is_no_number() -> None:
    good, bad, unknown = (Fidelity(0.9, increase, 0.01, 0.9) for increase in (0.0125, 0.125, float("nan")))
    assert Comparison(0.8, good, None).worst_bpb_increase == 0.0125
    assert Comparison(0.8, good, bad).worst_bpb_increase == 0.125
    assert Comparison(0.8, bad, good).worst_bpb_increase == 0.125
    assert np.isnan(Comparison(0.8, good, unknown).worst_bpb_increase)


def test_pytorch_takes_as_many_threads_as_the_runtime_would(
    checkpoint: Checkpoint, corpus_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    eval_text(checkpoint.model, checkpoint.tokenizer, corpus_file)
    assert taken == [float_threads(checkpoint.model.config)] == [1]
