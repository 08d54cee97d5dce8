"""Small hand-made evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.evaluation.novelty import LARGEST_N
from benchmarks.evaluation.run import TRUE, Evaluation

# Bytes, bits per byte, share of the pairs that are right.
MODELS = {
    "nano int8": (1_900_000, 0.7446, 0.896),
    "nano fp32": (7_400_000, 0.7440, 0.897),
    "nano q8": (2_000_000, 0.7441, 0.898),
    "nano int4": (1_500_000, 0.7621, 0.881),
}
OPENING = "Once there was a dog."
TEXTS = {
    TRUE: " It ran home.\nThe end.",
    "nano fp32": " It saw a cat. They played all day in the park. The end.",
    "nano int8": " It saw a bird. They played all day in the park. They were happy.",
}


def estimate(value: float | None, width: float | None = 0.01) -> dict[str, Any]:
    """A figure with its interval, as JSON has it."""
    if value is None or width is None:
        return {"value": value, "low": None, "high": None, "error": None, "clusters": 1}
    return {"value": value, "low": value - width, "high": value + width, "error": width / 2, "clusters": 30}


def loss(bits: float) -> dict[str, Any]:
    """The figures of the suite `loss` for one model."""
    figures = {
        "tokens": 7936,
        "nats per token": estimate(2.9 * bits),
        "perplexity": {"value": 8.5, "low": 8.0, "high": 9.0},
        "bits per byte": estimate(bits, 0.012),
    }
    groups = [(1, 1, 3.7), (2, 3, 2.6), (4, 7, 2.4), (8, 8, 1.8)]
    curve = [{"from": first, "to": last, "nats": nats + bits - 0.7} for first, last, nats in groups]
    return {"windows": figures, "by position": curve}


def pairs(right: float) -> dict[str, Any]:
    """The figures of the suite `pairs` for one model."""
    return {kind: {"accuracy": estimate(right, 0.014)} for kind in ("all", "tense")}


def stories(whole: float | None, repeated: float | None) -> dict[str, Any]:
    """Two figures of the suite `stories`."""
    return {"endings": 3, "ends properly": estimate(whole), "repeated 4-grams": estimate(repeated)}


def novelty(longest: int) -> dict[str, Any]:
    """The figures of the suite `novelty`."""
    shares = {str(n): estimate(1 - 1 / n) for n in range(1, LARGEST_N + 1)}
    return {
        "new n-grams": shares,
        "longest copy": {"words": longest, "text": "a"},
        "mean longest copy": float(longest),
    }


def difference(share: float, width: float | None) -> dict[str, Any]:
    """The figures of a difference between two models."""
    contains = width is None or abs(share) <= width
    return {
        "windows": {
            "bits per byte more": estimate(0.7 * share, width),
            "share": estimate(share, width),
            "contains zero": contains,
            "smallest difference": None if width is None else width,
        }
    }


def endings(texts: Mapping[str, Sequence[str]], opening: str = OPENING) -> dict[str, list[dict[str, Any]]]:
    """The endings of each model for openings that are all the same."""
    return {name: [{"opening": opening, "text": text, "ended": True} for text in of] for name, of in texts.items()}


def evaluation(
    results: Mapping[str, Any], differences: Mapping[str, Any] | None = None, written: Mapping[str, Any] | None = None
) -> Evaluation:
    """An evaluation with these figures."""
    settings = {
        "model": "nano",
        "text": ["data/stories.txt"],
        "seed": 7,
        "hashes": {name: "0" * 64 for name in results if name in MODELS},
        "text hash": "1" * 64,
    }
    return Evaluation(settings, dict(results), dict(differences or {}), endings=dict(written or {}))


def full_evaluation() -> Evaluation:
    """Four models with every suite, and five beginnings."""
    results: dict[str, Any] = {
        name: {"bytes": size, "loss": loss(bits), "pairs": pairs(right)} for name, (size, bits, right) in MODELS.items()
    }
    for name, longest in (("nano int8", 15), (TRUE, 13)):
        results.setdefault(name, {})
        results[name] |= {"stories": stories(0.9, 0.02), "novelty": novelty(longest)}
    found = {"nano int8 against nano fp32": difference(0.0008, 0.0002)}
    return evaluation(results, found, endings({name: [text] * 5 for name, text in TEXTS.items()}))
