"""The suite `loss`: how well a model predicts a text, and how two models differ."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.evaluation.intervals import Estimate, ratio
from benchmarks.evaluation.reading import Advance, Comparison, FloatArray, Way, compare, count_of, nats
from benchmarks.evaluation.subject import Subject
from benchmarks.evaluation.text import EncodedText, StoryText
from slm.console.errors import SlmxError

LATE = 0.99


def ways_of(*subjects: Subject) -> list[Way]:
    """Returns the ways in which models are read. If rounding depends on the run, token by token is one of them."""
    return [Way.WINDOWS, Way.SLIDING, *[Way.TOKENS] * any(subject.rounds_by_run for subject in subjects)]


def work(subject: Subject, text: StoryText, most: int | None, ways: list[Way]) -> int:
    """Returns the number of ids that are predicted in all ways together."""
    return len(ways) * count_of(EncodedText.encode(text, subject.tokenizer), subject.config.block_size, most)


def measure_loss(subject: Subject, text: StoryText, most: int | None, advance: Advance) -> dict[str, Any]:
    """Measures one model.

    Args:
        subject: The model.
        text: The text.
        most: The most ids to predict, from the start; None for all.
        advance: Called with the number of ids that were predicted.

    Returns:
        The figures for JSON: for each way of reading the loss, the perplexity, the bits per byte, and for windows the
        loss by position.

    Raises:
        SlmxError: The text is shorter than one context, or the logits are NaN or infinite.
    """
    encoded = EncodedText.encode(text, subject.tokenizer)
    found: dict[str, Any] = {}
    for way in ways_of(subject):
        costs = nats(subject, encoded, way, most, advance)
        found[way.value] = _figures(costs, encoded)
        if way is Way.WINDOWS:
            found["by position"] = by_position(costs, subject.config.block_size)
    return found


def measure_difference(
    one: Subject, other: Subject, text: StoryText, most: int | None, advance: Advance
) -> dict[str, Any]:
    """Measures what a model loses against another, in pairs: both predict the same text.

    Models of different tokenizers or contexts are compared by the bits of each story, and have no divergence.

    Args:
        one: The model.
        other: The model that it is compared with.
        text: The text.
        most: The most ids to predict, from the start; None for all.
        advance: Called with the number of ids that were predicted.

    Returns:
        The figures for JSON, for each way of reading.

    Raises:
        SlmxError: As in `measure_loss`, or models of different tokenizers have not read a whole story.
    """
    encoded = EncodedText.encode(text, one.tokenizer)
    alike = one.tokenizer == other.tokenizer and one.config.block_size == other.config.block_size
    others = encoded if alike else EncodedText.encode(text, other.tokenizer)
    found: dict[str, Any] = {}
    for way in ways_of(one, other):
        if alike:
            ours, theirs, comparison = compare(one, other, encoded, way, most, advance)
            found[way.value] = _difference(ours, encoded, theirs, others) | _common(comparison, encoded)
        else:
            ours = nats(one, encoded, way, most, advance)
            theirs = nats(other, others, way, most, lambda _: None)
            found[way.value] = _difference(ours, encoded, theirs, others)
    return found


def by_position(costs: FloatArray, block_size: int) -> list[dict[str, float | int]]:
    """Returns the mean nats by the number of ids that were read before, in groups that double: 1, 2-3, 4-7 ..."""
    rows = costs.reshape(-1, block_size).mean(axis=0)
    groups, start = [], 0
    while start < block_size:
        end = min(2 * start + 1, block_size)
        groups.append({"from": start + 1, "to": end, "nats": float(rows[start:end].mean())})
        start = end
    return groups


def _figures(costs: FloatArray, encoded: EncodedText) -> dict[str, Any]:
    loss = ratio(encoded.by_story(costs), encoded.sizes(len(costs)))
    return {
        "tokens": len(costs),
        "nats per token": loss.to_json(),
        "perplexity": loss.exponential(),
        "bits per byte": _bits(loss, encoded).to_json(),
    }


def _bits(per_token: Estimate, encoded: EncodedText) -> Estimate:
    return per_token.scaled(1 / math.log(2) / encoded.stream.bytes_per_token)


def _difference(ours: FloatArray, encoded: EncodedText, theirs: FloatArray, others: EncodedText) -> dict[str, Any]:
    """Returns the difference in bits per byte, over the stories that both have read as far."""
    if encoded is others:
        difference = _bits(ratio(encoded.by_story(ours - theirs), encoded.sizes(len(ours))), encoded)
        base = _bits(ratio(others.by_story(theirs), others.sizes(len(theirs))), others)
    else:
        last = min(int(encoded.owners[len(ours) - 1]), int(others.owners[len(theirs) - 1]))
        if not last:
            raise SlmxError(f"{encoded.text.name}: no whole story was read; give more --max-tokens or text")
        sizes = np.where(np.arange(len(encoded.text.stories)) < last, encoded.text.bytes_of, 0.0)
        bits = [coded.by_story(costs) / math.log(2) for coded, costs in ((encoded, ours), (others, theirs))]
        difference, base = ratio(bits[0] - bits[1], sizes), ratio(bits[1], sizes)
    return {
        "bits per byte more": difference.to_json(),
        "bits per byte of the second": base.to_json(),
        "share": difference.scaled(1 / base.value).to_json(),
        "contains zero": difference.contains_zero,
        "smallest difference": difference.smallest_difference,
    }


def _common(comparison: Comparison, encoded: EncodedText) -> dict[str, Any]:
    sizes = encoded.sizes(len(comparison.same))
    return {
        "divergence": ratio(encoded.by_story(comparison.divergence), sizes).to_json(),
        "divergence, 99 %": float(np.quantile(comparison.divergence, LATE)),
        "same most likely token": ratio(encoded.by_story(comparison.same), sizes).to_json(),
        "change of the true token's probability": ratio(encoded.by_story(comparison.change), sizes).to_json(),
        "change, root mean square": float(np.sqrt((comparison.change**2).mean())),
    }
