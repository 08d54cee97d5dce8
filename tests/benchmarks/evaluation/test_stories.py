"""The figures of stories count what they say, and tell controls from true stories."""

from __future__ import annotations

import math

import pytest

from benchmarks.evaluation.continuations import Excerpt, Vocabulary, choose_excerpts
from benchmarks.evaluation.controls import CONTROLS, noticed, sentences_of
from benchmarks.evaluation.novelty import TrainingText, measure_novelty
from benchmarks.evaluation.stories import (
    FEWEST_REPLIES,
    Ending,
    answers_to_oneself,
    measure_stories,
    openings,
    readability,
    true_endings,
    write_endings,
)
from benchmarks.evaluation.subject import open_subject
from runtimes import load
from runtimes.types import SamplingParams
from slm.console.errors import SlmxError
from tests.benchmarks.evaluation.test_loss import ignore

TALES = [
    f"Once upon a time, {name} had a {thing}. {name} was happy. One day, {name} lost the {thing}. "
    f'"Where is my {thing}?" asked {name}. "Here it is," said Mom. {name} hugged Mom and said thank you. '
    "They went home and played together."
    for name in ("Tom", "Lily", "Ben", "Mia", "Sam")
    for thing in ("ball", "red hat", "small toy", "cookie")
]


def measured(endings: list[Ending], true: list[Ending]) -> dict[str, object]:
    return measure_stories(endings, true, Vocabulary.of(TALES), open_subject("nano", None), english=True, words=15)


def test_the_true_endings_are_their_own_best() -> None:
    true = true_endings(choose_excerpts(TALES, 100, 15, lambda story: True))
    found = measured(true, true)
    assert found["endings"] == len(TALES)
    assert found["BLEU"]["value"] == pytest.approx(100)  # type: ignore[index]
    assert found["chrF"]["value"] == pytest.approx(100)  # type: ignore[index]
    assert "tok:13a" in found["BLEU"]["signature"]  # type: ignore[index]
    assert found["ends properly"]["value"] == 1  # type: ignore[index]
    assert found["unknown words"]["value"] == 0  # type: ignore[index]
    assert found["readability"]["value"] is not None  # type: ignore[index]


def test_self_bleu_has_no_interval_because_each_ending_is_a_reference_of_the_others() -> None:
    true = true_endings(choose_excerpts(TALES, 100, 15, lambda story: True))
    assert measured([true[0]] * 3, [true[0]] * 3)["self-BLEU"] == pytest.approx(100)
    assert measured(true[:1], true[:1])["self-BLEU"] is None


def test_other_languages_have_no_english_figures() -> None:
    true = true_endings(choose_excerpts(TALES, 100, 15, lambda story: True))
    found = measure_stories(true, true, Vocabulary.of(TALES), open_subject("nano", None), english=False, words=15)
    assert {"readability", "answers to oneself"}.isdisjoint(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"Hi," said Tom. "Hello," replied Ben.', [False]),
        ('"Hi," said Tom. "Hello," replied Tom.', [True]),
        ('"Hi," Tom said. "Hello," Tom answered.', [True]),
        ('"Hi," Tom said. "Hello," Lily replied. "Bye," replied Lily.', [False, True]),
        ('"Hi," said Tom. "Bye," said Tom.', []),
        ("Tom replied.", []),
    ],
)
def test_answers_to_oneself(text: str, expected: list[bool]) -> None:
    assert answers_to_oneself(text) == expected


def test_readability_is_that_of_its_formula() -> None:
    assert readability("The cat sat. The dog ran.") == pytest.approx(4.71 * 3 + 0.5 * 3 - 21.43)
    assert math.isnan(readability("..."))


@pytest.mark.slow
def test_each_control_is_last_where_it_should_be_and_nowhere_hidden() -> None:
    nano = open_subject("nano", None)
    excerpts = choose_excerpts(TALES, 100, 15, lambda story: True)
    openings = [Excerpt(f"One day, {name} was in the garden.", "") for name in ("Ann", "Bob", "Kim", "Joe")]
    training = [ending.opening + ending.text for ending in write_endings(nano, openings, SamplingParams(), 9, ignore)]
    true = true_endings(excerpts)
    columns = {"true stories": true, "nano": write_endings(nano, excerpts, SamplingParams(), 1, ignore)}
    columns |= {name: control.write(excerpts, training) for name, control in CONTROLS.items()}
    known = TrainingText(training)
    results = {
        name: {
            "stories": measure_stories(endings, true, Vocabulary.of(TALES), nano, english=True, words=15),
            "novelty": measure_novelty([ending.text for ending in endings], known),
        }
        for name, endings in columns.items()
    }
    assert noticed(results) == dict.fromkeys(CONTROLS, True)
    blind = {name: {"stories": {"names kept": {"value": 0.5}}} for name in ("nano", "swapped names")}
    blind["nano"]["stories"]["names kept"]["value"] = 0.1
    assert noticed(blind) == {"swapped names": False}
    blind["nano"]["stories"]["names kept"]["value"] = 0.5
    assert noticed(blind) == {"swapped names": False}, "as low as a model is not last"


def test_controls_are_what_their_names_say() -> None:
    excerpts, training = choose_excerpts(TALES, 100, 15, lambda story: True), ["Once there was a bear. It ate a fish."]
    made = {name: control.write(excerpts, training) for name, control in CONTROLS.items()}
    for number, excerpt in enumerate(excerpts):
        assert all(endings[number].opening == excerpt.opening for endings in made.values())
        assert sorted(made["shuffled sentences"][number].text.split()) == sorted(excerpt.ending.split())
        assert made["copier"][number].text.strip() in training[0]
        first = sentences_of(excerpt.ending)[0]
        assert made["repeater"][number].text.count(first) >= 3
    moved = [made["shuffled sentences"][number].text != excerpt.ending for number, excerpt in enumerate(excerpts)]
    assert sum(moved) > len(moved) / 2
    assert not any(name in ending.text for ending in made["swapped names"] for name in ("Tom", "Lily", "Ben", "Mia"))


@pytest.mark.slow
def test_endings_are_those_of_generate() -> None:
    subject = open_subject("nano", "int8")
    excerpts = openings(TALES, 3, [subject], 15)
    found = write_endings(subject, excerpts, SamplingParams(), 7, ignore)
    with load("nano", "int8") as generator:
        for number, (ending, excerpt) in enumerate(zip(found, excerpts, strict=True)):
            expected = generator.generate(excerpt.opening, seed=7 + number)
            assert (ending.opening, ending.text) == (excerpt.opening, expected.completion_text)
            assert ending.ended == (expected.stats.finish_reason == "stop")


def test_texts_without_a_story_to_compare_are_one_line() -> None:
    with pytest.raises(SlmxError, match="no story that fits"):
        openings(["Short."], 3, [], 60)


def test_a_share_of_few_replies_is_not_told() -> None:
    slip = ' "Hi, I am here and you are not," said Tom. "Hello, it is so good that we both are," replied Tom.'
    for count, value in ((FEWEST_REPLIES - 1, None), (FEWEST_REPLIES, 1.0)):
        endings = [Ending("One day, Tom ran.", slip, True)] * count
        assert measured(endings, endings)["answers to oneself"]["value"] == value  # type: ignore[index]
