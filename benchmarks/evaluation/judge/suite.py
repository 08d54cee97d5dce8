"""Asks the judge about every ending, without the names of the models, and puts its scores into figures."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.evaluation.intervals import mean
from benchmarks.evaluation.judge.endpoint import Judge, StoryRefusedError
from benchmarks.evaluation.judge.journal import Asked, Journal
from benchmarks.evaluation.judge.rubric import AXES, messages, parse_scores
from benchmarks.evaluation.reading import Advance
from benchmarks.evaluation.stories import Ending
from slm.console.plain_text import as_plain_text
from slm.storage.hashing import sha256_of_bytes

CHARACTERS_PER_TOKEN = 4
TOKENS_OF_ANSWER = 60  # six scores as JSON
PRICED = 1_000_000  # tokens for which a price is given
REFUSALS = 3  # stories refused one after the other, after which the endpoint is given up


@dataclass(frozen=True)
class Cost:
    """What a judgement costs, before it is asked for.

    Attributes:
        requests: The number of endings that are still to be judged.
        tokens_in: Tokens of the requests, at 4 characters a token.
        tokens_out: Tokens of the answers.
        money: The price; None if no price of a token was given.
    """

    requests: int
    tokens_in: int
    tokens_out: int
    money: float | None

    def __str__(self) -> str:
        price = "" if self.money is None else f", {self.money:.2f} at the given price"
        return (
            f"{self.requests:,} requests, about {self.tokens_in:,} tokens in and {self.tokens_out:,} out{price}; "
            "each answer without scores is one request more"
        )


def key_of(ending: Ending) -> str:
    """Returns the name of an ending in the journal: a hash of its text. Equal endings are judged once."""
    return sha256_of_bytes(f"{ending.opening}\0{ending.text}".encode("utf-8", "replace"))[:24]


def waiting(endings: Mapping[str, Sequence[Ending]], journal: Journal, seed: int) -> list[Ending]:
    """Returns the endings of all models that are to be judged still, in an order that a seed has shuffled."""
    every = {key_of(ending): ending for model in endings.values() for ending in model}
    keys = sorted(every)
    random.Random(seed).shuffle(keys)
    return [every[key] for key in keys if not journal.of(key).done]


def cost_of(endings: Iterable[Ending], price: tuple[float, float] | None) -> Cost:
    """Estimates what it costs to judge endings.

    Args:
        endings: The endings.
        price: The prices of a million tokens in and out.
    """
    lengths = [sum(len(part["content"]) for part in messages(one.opening, one.text)) for one in endings]
    count = (sum(lengths) // CHARACTERS_PER_TOKEN, TOKENS_OF_ANSWER * len(lengths))
    money = None if price is None else sum(n * each for n, each in zip(count, price, strict=True)) / PRICED
    return Cost(len(lengths), *count, money)


def ask(endings: Iterable[Ending], judge: Judge, journal: Journal, advance: Advance) -> None:
    """Judges endings, and keeps every answer.

    Args:
        endings: The endings.
        judge: Who is asked.
        journal: Where the answers are kept. An ending that has one answer without scores there is asked once more.
        advance: Called after each ending.

    An ending that the endpoint refuses has an answer without scores if the endpoint answers about others.

    Raises:
        SlmxError: The endpoint does not answer, or refuses `REFUSALS` endings one after the other.
    """
    refused: dict[str, StoryRefusedError] = {}
    for ending in endings:
        try:
            _ask_about(ending, judge, journal)
        except StoryRefusedError as error:
            refused[key_of(ending)] = error
            if len(refused) == REFUSALS:
                raise
        else:
            _keep_refusals(refused, journal)
        advance(1)
    if refused and not journal.asked:
        raise next(iter(refused.values()))
    _keep_refusals(refused, journal)


def _ask_about(ending: Ending, judge: Judge, journal: Journal) -> None:
    key = key_of(ending)
    while not journal.of(key).done:
        again = journal.of(key).answers > 0
        reply = judge.ask(messages(ending.opening, ending.text, again))
        scores, why = None, None
        try:
            scores = parse_scores(reply.content)
        except ValueError as error:
            why = as_plain_text(str(error))
        journal.add(key, reply.raw, scores, why, reply.tokens)


def _keep_refusals(refused: dict[str, StoryRefusedError], journal: Journal) -> None:
    for key, error in refused.items():
        journal.add(key, "", None, as_plain_text(str(error)), (0, 0))
    refused.clear()


def figures(endings: Sequence[Ending], journal: Journal, judge: str) -> dict[str, Any]:
    """Returns the figures of a model for JSON: the mean of each axis over the endings that have scores.

    Args:
        endings: The endings of the model.
        journal: The answers.
        judge: The name of the judge.
    """
    asked: list[Asked] = [journal.of(key_of(ending)) for ending in endings]
    scores = [one.scores for one in asked if one.scores is not None]
    found: dict[str, Any] = {"scored by": judge, "stories": len(asked), "no scores": len(asked) - len(scores)}
    for axis in AXES:
        found[axis] = mean(np.array([each[axis] for each in scores], np.float64)).to_json()
    return found
