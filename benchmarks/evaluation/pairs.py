"""The suite `pairs`: which of two English texts, one right and one wrong, does a model find more likely?

The texts are made from words of children's stories. The two texts of a pair differ in one word or two. A person gets
nearly all of them right; a model that knows nothing gets half. The method is that of BLiMP (Warstadt et al., 2020).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from benchmarks.evaluation.intervals import mean, share
from benchmarks.evaluation.reading import Advance
from benchmarks.evaluation.subject import Subject
from runtimes.engine.loss import log_softmax, negative_log_likelihood

OF_A_KIND = 300
SEED = 1

BOYS = ("Tom", "Ben", "Sam", "Max", "Tim", "Jack")
GIRLS = ("Lily", "Mia", "Anna", "Sue", "Lucy", "Sara")
ANIMALS = ("dog", "cat", "bird", "rabbit", "bear", "frog")
THINGS = ("ball", "doll", "book", "hat", "cookie", "toy", "flower", "cup")
PLACES = ("park", "garden", "forest", "house", "school", "store")
FEELINGS = ("happy", "sad", "tired", "scared", "excited", "hungry")
LOOKS = ("big", "small", "little", "new", "red", "pretty")


@dataclass(frozen=True)
class Pair:
    """A right and a wrong text."""

    right: str
    wrong: str


def _agreement() -> Iterator[Pair]:
    """Yields pairs in which the verb agrees with its noun."""
    for animal, feeling in product(ANIMALS, FEELINGS):
        yield Pair(f"The {animal}s were very {feeling}.", f"The {animal}s was very {feeling}.")
        yield Pair(f"The {animal} was very {feeling}.", f"The {animal} were very {feeling}.")
    for animal, other, look in product(ANIMALS, ANIMALS, LOOKS[:3]):
        if animal != other:
            text = f"The {{}} near the {other} {{}} {look}."
            yield Pair(text.format(f"{animal}s", "were"), text.format(f"{animal}s", "was"))
    for look, thing in product(LOOKS, THINGS):
        yield Pair(f"There were two {look} {thing}s on the table.", f"There was two {look} {thing}s on the table.")
        yield Pair(f"There was a {look} {thing} on the table.", f"There were a {look} {thing} on the table.")
    for name, thing in product(BOYS + GIRLS, THINGS):
        yield Pair(f"{name} likes to play with the {thing}.", f"{name} like to play with the {thing}.")


def _pronouns() -> Iterator[Pair]:
    """Yields pairs in which the pronoun fits the name."""
    people = [(name, "He", "She", "his", "her", "himself", "herself") for name in BOYS]
    people += [(name, "She", "He", "her", "his", "herself", "himself") for name in GIRLS]
    for (name, he, she, his, her, himself, herself), feeling in product(people, FEELINGS):
        yield Pair(f"{name} was {feeling}. {he} went home.", f"{name} was {feeling}. {she} went home.")
        thing = THINGS[len(name + feeling) % len(THINGS)]
        yield Pair(f"{name} was {feeling}. It was {his} {thing}.", f"{name} was {feeling}. It was {her} {thing}.")
        yield Pair(
            f"{name} was {feeling} and fell. {name} hurt {himself}.",
            f"{name} was {feeling} and fell. {name} hurt {herself}.",
        )
    for boy, girl, feeling in product(BOYS, GIRLS, FEELINGS[:3]):
        yield Pair(
            f"{boy} and {girl} were {feeling}. They went home.", f"{boy} and {girl} were {feeling}. It went home."
        )


VERBS = (
    ("walk", "walks", "walked"),
    ("run", "runs", "ran"),
    ("go", "goes", "went"),
    ("come", "comes", "came"),
    ("jump", "jumps", "jumped"),
    ("play", "plays", "played"),
)


def _tense() -> Iterator[Pair]:
    """Yields pairs in which the tense fits the time, and stays the same."""
    for name, (plain, now, before), place in product(BOYS + GIRLS, VERBS, PLACES):
        where = f"in the {place}" if plain in ("jump", "play") else f"to the {place}"
        yield Pair(f"Yesterday, {name} {before} {where}.", f"Yesterday, {name} {now} {where}.")
        yield Pair(f"Tomorrow, {name} will {plain} {where}.", f"Tomorrow, {name} will {before} {where}.")
        yield Pair(f"One day, {name} woke up and {before} {where}.", f"One day, {name} woke up and {now} {where}.")
        yield Pair(f"{name} wanted to {plain} {where}.", f"{name} wanted to {before} {where}.")


CONSEQUENCES = (
    ("The box was empty. There was {} in it.", "nothing", "something"),
    ("The cup was full. There was {} in it.", "something", "nothing"),
    ("{name} could not reach the apple. It was too {}.", "high", "low"),
    ("{name} could not lift the box. It was too {}.", "heavy", "light"),
    ("{name} did not see the bird. {name} did {} know that it was there.", "not", "always"),
    ("{name} was not tired. {name} did not want to {}.", "sleep", "play"),
    ("{name} was not hungry. {name} did not want to {}.", "eat", "play"),
    ("{name} was not thirsty. {name} did not want to {}.", "drink", "play"),
    ("The door was not open. It was {}.", "closed", "open"),
    ("The water was not hot. It was {}.", "cold", "hot"),
    ("The dog was not big. It was {}.", "small", "big"),
    ("{name} was not happy. {name} felt {}.", "sad", "happy"),
    ("The room was not light. It was {}.", "dark", "light"),
    ("The floor was not clean. It was {}.", "dirty", "clean"),
    ("{name} lost the game. {name} did not {}.", "win", "lose"),
    ("It was not day. It was {}.", "night", "day"),
)


def _negation() -> Iterator[Pair]:
    """Yields pairs in which a negated verb has its plain form, and what was denied is not so."""
    for name, (plain, _, before), place in product(BOYS + GIRLS, VERBS, PLACES[:3]):
        where = f"in the {place}" if plain in ("jump", "play") else f"to the {place}"
        yield Pair(f"{name} did not {plain} {where}.", f"{name} did not {before} {where}.")
    for (text, right, wrong), name in product(CONSEQUENCES, BOYS + GIRLS):
        begin = "" if "{name}" in text else f"{name} looked. "
        yield Pair(begin + text.format(right, name=name), begin + text.format(wrong, name=name))


OBJECTS = (
    ("ate", ("apple", "cake", "cookie", "soup", "sandwich"), ("chair", "book", "door", "car", "hat")),
    ("drank", ("milk", "water", "juice"), ("book", "table", "hat")),
    ("read", ("book", "story", "letter"), ("soup", "shoe", "milk")),
    ("rode", ("bike", "horse"), ("soup", "apple")),
    ("put on", ("hat", "coat", "shoes", "dress"), ("soup", "tree", "lake", "house")),
    ("opened", ("door", "box", "window", "bag"), ("grass", "rain", "cat", "sky")),
    ("sang", ("song",), ("table",)),
    ("climbed", ("tree", "hill", "ladder"), ("soup", "milk", "song")),
    ("kicked", ("ball", "rock"), ("sky", "song")),
    ("fed", ("dog", "cat", "ducks"), ("chair", "song", "hill")),
    ("heard", ("noise", "bird", "song"), ("color", "apple", "cookie")),
    ("picked", ("flowers", "berries"), ("rivers", "clouds")),
)


def _objects() -> Iterator[Pair]:
    """Yields pairs in which the object fits the verb."""
    for (verb, rights, wrongs), name in product(OBJECTS, BOYS + GIRLS):
        for right, wrong in zip(rights, wrongs, strict=True):
            yield Pair(f"{name} {verb} the {right}.", f"{name} {verb} the {wrong}.")


def _possession() -> Iterator[Pair]:
    """Yields pairs about who has a thing after it was given or taken, and where it is after it was put there."""
    for boy, girl in product(BOYS, GIRLS):
        for one, other in ((boy, girl), (girl, boy)):
            thing = THINGS[len(one) * 3 % len(THINGS)]
            gave = f"{one} had a {thing}. {other} had nothing. {one} gave the {thing} to {other}."
            yield Pair(f"{gave} Now the {thing} belongs to {other}.", f"{gave} Now the {thing} belongs to {one}.")
            took = f"{one} and {other} saw a {thing}. {one} took the {thing} and ran away. {other} was sad,"
            yield Pair(f"{took} because it was with {one}.", f"{took} because it was with {other}.")
            asked = f'{one} had a {thing}. "Can I have your {thing}?" asked {other}. "Yes," said'
            yield Pair(f"{asked} {one}.", f"{asked} {other}.")
    things = (("ball", "doll"), ("book", "hat"), ("toy", "cup"), ("cookie", "flower"))
    places = (("box", "bag"), ("bag", "basket"), ("basket", "box"))
    for name, (thing, other), (place, elsewhere) in product(BOYS[:3] + GIRLS[:3], things, places):
        put = f"{name} put the {thing} in the {place} and the {other} in the {elsewhere}. {name} looked in the {place}"
        yield Pair(f"{put} and saw the {thing}.", f"{put} and saw the {other}.")


KINDS: dict[str, Callable[[], Iterator[Pair]]] = {
    "agreement": _agreement,
    "pronouns": _pronouns,
    "tense": _tense,
    "negation": _negation,
    "objects": _objects,
    "possession": _possession,
}


def make_pairs(kind: str, count: int = OF_A_KIND) -> list[Pair]:
    """Returns pairs of a kind, always the same ones.

    Args:
        kind: A key of `KINDS`.
        count: The most pairs to return.
    """
    pairs = list(dict.fromkeys(KINDS[kind]()))
    random.Random(SEED).shuffle(pairs)
    return pairs[:count]


def measure_pairs(subject: Subject, advance: Advance) -> dict[str, Any]:
    """Measures the share of pairs of which a model finds the right text more likely.

    Args:
        subject: The model.
        advance: Called with the number of pairs that were read.

    Returns:
        The accuracy with its interval for each kind and for all, which pairs were right (`1`) or wrong (`0`), and a few
        that were wrong, for JSON.
    """
    found: dict[str, Any] = {}
    everything = ""
    for kind in KINDS:
        pairs = make_pairs(kind)
        hits, wrong = "", []
        for pair in pairs:
            is_right = cost_of(subject, pair.right) < cost_of(subject, pair.wrong)
            hits += "01"[is_right]
            if not is_right:
                wrong.append(pair)
            advance(1)
        examples = [{"right": pair.right, "preferred": pair.wrong} for pair in wrong[:3]]
        found[kind] = {"accuracy": share(hits.count("1"), len(hits)).to_json(), "hits": hits, "mistakes": examples}
        everything += hits
    return {"all": {"accuracy": share(everything.count("1"), len(everything)).to_json(), "hits": everything}} | found


def compare_pairs(ours: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Returns how much more accurate one model is than another one on the same pairs, for each kind and for all.

    Args:
        ours: What `measure_pairs` returned for the model.
        other: The same for the model that it is compared with.

    Returns:
        The paired difference with its interval by kind, for JSON.
    """
    found = {}
    for kind, figures in ours.items():
        signs = [int(one) - int(two) for one, two in zip(figures["hits"], other[kind]["hits"], strict=True)]
        more = mean(np.array(signs, np.float64))
        found[kind] = {"accuracy more": more.to_json(), "contains zero": more.contains_zero}
    return found


def cost_of(subject: Subject, text: str) -> float:
    """Returns the negative log-likelihood of a text that begins a story, in nats."""
    ids = np.array([subject.tokenizer.begin, *subject.tokenizer.encode(text)], np.int64)
    subject.session.reset()
    return negative_log_likelihood(log_softmax(subject.session.score(ids[:-1])), ids[1:])
