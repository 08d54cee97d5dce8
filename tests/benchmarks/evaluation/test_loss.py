"""The suite `loss` agrees with PyTorch, with the checks of an export, and with itself."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.evaluation.loss import by_position, measure_difference, measure_loss
from benchmarks.evaluation.reading import Way, compare, nats
from benchmarks.evaluation.subject import Subject, open_subject
from benchmarks.evaluation.text import EncodedText, StoryText
from slm.checkpoint import load_checkpoint
from slm.console.errors import SlmxError
from slm.data.corpus import encode_stories
from slm.train.evaluate import evaluate
from tests.bundles import tiny_bundle

pytestmark = pytest.mark.slow


def ignore(_: int) -> None:
    """Takes no notice of progress."""


@pytest.fixture(scope="module")
def text(stories: list[str]) -> StoryText:
    return StoryText("stories", tuple(stories[:40]))


@pytest.fixture(scope="module")
def fp32(tiny_checkpoint: Path) -> Subject:
    return open_subject(str(tiny_bundle(tiny_checkpoint)), "fp32")


@pytest.fixture(scope="module")
def int8(tiny_checkpoint: Path) -> Subject:
    return open_subject(str(tiny_bundle(tiny_checkpoint)), "int8")


def test_windows_are_those_of_training(tiny_checkpoint: Path, fp32: Subject, text: StoryText) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    expected = evaluate(checkpoint.model, encode_stories(text.stories, checkpoint.tokenizer))
    pytorch = open_subject(str(tiny_checkpoint), None)
    for subject in (fp32, pytorch):
        found = measure_loss(subject, text, None, ignore)
        assert found["windows"]["tokens"] == expected.tokens
        assert found["windows"]["nats per token"]["value"] == pytest.approx(expected.loss, abs=1e-4)
        assert found["windows"]["bits per byte"]["value"] == pytest.approx(expected.bits_per_byte, abs=1e-4)
        assert found["windows"]["perplexity"]["value"] == pytest.approx(expected.perplexity, rel=1e-4)
        assert found["windows"]["nats per token"]["clusters"] == len(text.stories)
        assert set(found) == {"windows", "sliding", "by position"}


def test_a_sliding_window_predicts_the_same_tokens_with_more_context(fp32: Subject, text: StoryText) -> None:
    encoded = EncodedText.encode(text, fp32.tokenizer)
    side, sliding = (nats(fp32, encoded, way, None, ignore) for way in (Way.WINDOWS, Way.SLIDING))
    block = fp32.config.block_size
    assert len(side) == len(sliding)
    assert sliding[: block // 4] == pytest.approx(side[: block // 4], abs=1e-4)
    ids, position = encoded.ids, 3 * block + 5
    start = position - position % (block // 4) + block // 4 - block
    fp32.session.reset()
    logits = fp32.session.score(ids[start : position + 1])[-1].astype(np.float64)
    expected = math.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[ids[position + 1]]
    assert sliding[position] == pytest.approx(expected, abs=1e-4)


def test_int8_is_read_token_by_token_too(int8: Subject, fp32: Subject, text: StoryText) -> None:
    assert set(measure_loss(int8, text, 500, ignore)) == {"windows", "sliding", "token by token", "by position"}
    difference = measure_difference(int8, fp32, text, 500, ignore)
    assert set(difference) == {"windows", "sliding", "token by token"}
    for figures in difference.values():
        assert figures["divergence"]["value"] > 0
        assert figures["divergence, 99 %"] >= figures["divergence"]["value"]
        assert 0.5 < figures["same most likely token"]["value"] <= 1
        assert abs(figures["share"]["value"]) < 0.05


def test_a_variant_against_itself_is_no_different(fp32: Subject, tiny_checkpoint: Path, text: StoryText) -> None:
    twin = open_subject(str(tiny_bundle(tiny_checkpoint)), "fp32")
    for figures in measure_difference(fp32, twin, text, None, ignore).values():
        assert figures["contains zero"]
        assert figures["bits per byte more"]["value"] == 0
        assert figures["same most likely token"]["value"] == 1
        assert figures["divergence"]["value"] == pytest.approx(0, abs=1e-6)


def test_a_difference_is_that_of_the_two_losses(int8: Subject, fp32: Subject, text: StoryText) -> None:
    bits = [measure_loss(subject, text, None, ignore)["windows"]["bits per byte"]["value"] for subject in (int8, fp32)]
    found = measure_difference(int8, fp32, text, None, ignore)["windows"]
    assert found["bits per byte more"]["value"] == pytest.approx(bits[0] - bits[1], abs=1e-6)
    assert found["share"]["value"] == pytest.approx(bits[0] / bits[1] - 1, abs=1e-5)


def test_models_of_other_tokenizers_are_compared_by_story(fp32: Subject, text: StoryText) -> None:
    other = open_subject("nano", None)
    found = measure_difference(fp32, other, text, None, ignore)["windows"]
    assert set(found) == {
        "bits per byte more",
        "bits per byte of the second",
        "share",
        "contains zero",
        "smallest difference",
    }
    assert found["bits per byte more"]["clusters"] < len(text.stories)
    assert not found["contains zero"]
    part = measure_difference(fp32, other, text, 2 * other.config.block_size, ignore)["windows"]
    assert 0 < part["bits per byte more"]["clusters"] < found["bits per byte more"]["clusters"]
    with pytest.raises(SlmxError, match="no whole story was read"):
        measure_difference(fp32, other, StoryText("one", (" ".join(text.stories),)), None, ignore)


def test_compare_reads_as_nats_does(int8: Subject, fp32: Subject, text: StoryText) -> None:
    encoded = EncodedText.encode(text, fp32.tokenizer)
    for way in Way:
        one, other, comparison = compare(int8, fp32, encoded, way, 300, ignore)
        assert one == pytest.approx(nats(int8, encoded, way, 300, ignore))
        assert other == pytest.approx(nats(fp32, encoded, way, 300, ignore))
        assert comparison.change == pytest.approx(np.exp(-one) - np.exp(-other))


def test_the_divergence_is_that_of_the_model_from_the_one_it_is_compared_with(int8: Subject, fp32: Subject) -> None:
    text = StoryText("one", ("Once upon a time, there was a shiny cat named Sam. " * 8,))
    encoded = EncodedText.encode(text, fp32.tokenizer)
    block = fp32.config.block_size
    found = compare(int8, fp32, encoded, Way.WINDOWS, block, ignore)[2].divergence
    rows = []
    for subject in (int8, fp32):
        subject.session.reset()
        logits = subject.session.score(encoded.ids[:block]).astype(np.float64)
        rows.append(logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True)))
    mine, reference = rows
    expected = (np.exp(reference) * (reference - mine)).sum(axis=-1)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert (np.exp(mine) * (mine - reference)).sum() != pytest.approx(found.sum(), rel=1e-3)


def test_every_byte_and_token_has_its_story(fp32: Subject, text: StoryText) -> None:
    encoded = EncodedText.encode(text, fp32.tokenizer)
    expected = [len(fp32.tokenizer.encode(story)) + 1 for story in text.stories]
    expected[-1] -= 1  # nothing follows the last story
    assert encoded.sizes(len(encoded.ids) - 1).tolist() == expected


def test_positions_are_in_groups_that_double() -> None:
    groups = by_position(np.tile(np.arange(6.0), 3), 6)
    assert [(group["from"], group["to"]) for group in groups] == [(1, 1), (2, 3), (4, 6)]
    assert [group["nats"] for group in groups] == [0.0, 1.5, 4.0]


def test_a_text_shorter_than_a_context_is_one_line(fp32: Subject) -> None:
    with pytest.raises(SlmxError, match="shorter than one context of"):
        measure_loss(fp32, StoryText("short", ("Once.",)), None, ignore)
