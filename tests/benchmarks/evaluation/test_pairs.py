"""The pairs are right, made once and for all, and tell a model that knows English from one that does not."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.evaluation.pairs import KINDS, Pair, compare_pairs, cost_of, make_pairs, measure_pairs
from benchmarks.evaluation.subject import Subject, open_subject
from export.checks.torch_session import float_session
from slm.data.sources import read_stories
from tests.bundles import random_model

TRAINING = Path(__file__).parents[4] / "shared" / "data" / "tinystories-train.txt"


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_are_many_different_and_the_same_every_time(kind: str) -> None:
    pairs = make_pairs(kind)
    assert len(set(pairs)) == len(pairs) >= 250
    assert pairs == make_pairs(kind)
    assert make_pairs(kind, 10) == pairs[:10]


@pytest.mark.parametrize("kind", KINDS)
def test_the_texts_of_a_pair_differ_in_few_words(kind: str) -> None:
    for pair in make_pairs(kind, 10_000):
        right, wrong = (re.findall(r"\w+", text) for text in (pair.right, pair.wrong))
        assert len(right) == len(wrong), pair
        assert 1 <= sum(one != other for one, other in zip(right, wrong, strict=True)) <= 2, pair


def test_no_right_text_is_the_wrong_one_of_another_pair() -> None:
    pairs = [pair for kind in KINDS for pair in make_pairs(kind, 10_000)]
    assert {pair.right for pair in pairs}.isdisjoint(pair.wrong for pair in pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_articles_fit(kind: str) -> None:
    for pair in make_pairs(kind, 10_000):
        assert not re.search(r"\ba [aeio]", pair.right), pair


@pytest.mark.skipif(not TRAINING.is_file(), reason="the training text is not part of this repository")
def test_the_words_are_those_of_the_stories() -> None:
    counts = Counter(word for story in read_stories([str(TRAINING)]) for word in re.findall(r"\w+", story.lower()))
    words = {word for kind in KINDS for pair in make_pairs(kind, 10_000) for word in re.findall(r"\w+", pair.right)}
    rare = {word for word in words if counts[word.lower()] < 20}
    assert not rare


@pytest.mark.slow
def test_the_shipped_nano_knows_most_and_an_untrained_model_nothing() -> None:
    few = {kind: make_pairs(kind, 40) for kind in KINDS}
    nano = open_subject("nano", None)
    random = replace(nano, session=float_session(random_model(nano.config)))

    def right(pair: Pair, subject: Subject) -> bool:
        return cost_of(subject, pair.right) < cost_of(subject, pair.wrong)

    everything = [pair for pairs in few.values() for pair in pairs]
    assert sum(right(pair, nano) for pair in everything) / len(everything) > 0.8
    assert 0.35 < sum(right(pair, random) for pair in everything) / len(everything) < 0.65


@pytest.mark.slow
def test_the_figures_are_the_share_of_right_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.evaluation.pairs.make_pairs", lambda kind: make_pairs(kind, 8))
    nano = open_subject("nano", None)
    seen: list[int] = []
    found = measure_pairs(nano, seen.append)
    assert sum(seen) == 8 * len(KINDS)
    assert list(found) == ["all", *KINDS]
    assert found["all"]["accuracy"]["clusters"] == 8 * len(KINDS)
    wrong = [pair for pair in make_pairs("agreement", 8) if cost_of(nano, pair.right) >= cost_of(nano, pair.wrong)]
    assert found["agreement"]["accuracy"]["value"] == 1 - len(wrong) / 8
    assert [row["preferred"] for row in found["agreement"]["mistakes"]] == [pair.wrong for pair in wrong[:3]]


def test_the_difference_of_two_models_is_that_of_the_same_pairs() -> None:
    ours = {"all": {"hits": "1101" * 25}, "tense": {"hits": "11"}}
    same = compare_pairs(ours, ours)
    assert same["all"] == {"accuracy more": same["all"]["accuracy more"], "contains zero": True}
    assert same["all"]["accuracy more"]["value"] == same["all"]["accuracy more"]["high"] == 0
    found = compare_pairs(ours, {"all": {"hits": "1001" * 25}, "tense": {"hits": "10"}})
    assert found["all"]["accuracy more"]["value"] == 0.25
    assert not found["all"]["contains zero"]
    assert found["tense"]["contains zero"], "two pairs show nothing"
    opposite = compare_pairs({"all": {"hits": "10" * 50}}, {"all": {"hits": "01" * 50}})
    assert opposite["all"]["accuracy more"]["value"] == 0
    assert opposite["all"]["accuracy more"]["error"] == pytest.approx(0.1, rel=0.01)
    with pytest.raises(ValueError, match="zip"):
        compare_pairs(ours, {"all": {"hits": "1"}, "tense": {"hits": "1"}})
