"""The sentence that a report begins with. Every word is computed, and what was not measured is not mentioned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.evaluation.controls import CONTROLS
from benchmarks.evaluation.figures import form_of_difference, interval, percent
from benchmarks.evaluation.reading import Way
from benchmarks.evaluation.run import AGAINST, TRUE, Evaluation
from benchmarks.evaluation.tables import blind_figures

NOTHING = "Nothing was measured."
BITS = "bits per byte"
# The figures of endings that the sentence may name, each with its words.
OF_ENDINGS = {"ends properly": "end properly", "repeated 4-grams": "of their sequences of four words are repetitions"}


@dataclass(frozen=True)
class Headline:
    """The sentence.

    Attributes:
        start: The name of the model and the words before the figure.
        figure: The first figure; empty if nothing was measured.
        rest: What the figure is compared with.
        others: The other figures; empty if there are none.
    """

    start: str
    figure: str = ""
    rest: str = ""
    others: str = ""

    @property
    def text(self) -> str:
        """The sentence."""
        return f"{self.start}{self.figure}{self.rest}{'; ' * bool(self.others)}{self.others}{'.' * bool(self.figure)}"


def headline(found: Evaluation) -> Headline:
    """Returns the sentence about the model that is the subject of an evaluation."""
    name = subject_of(found)
    if name is None:
        return Headline(NOTHING)
    suites = found.results[name]
    clauses = [
        _loss(name, found),
        _in_windows(name, found),
        _pairs(suites),
        _endings(name, found.results),
        _copies(name, found.results),
    ]
    told = [clause for clause in clauses if clause is not None]
    if not told:
        return Headline(NOTHING)
    start, figure, rest = told[0]
    others = "; ".join(before + value + after for before, value, after in told[1:])
    return Headline(
        start.replace("it", name, 1) if start.startswith("it ") else f"{name}: {start}", figure, rest, others
    )


def subject_of(found: Evaluation) -> str | None:
    """Returns the model that the sentence is about: the first one that is compared with another one, or the first."""
    models = models_of(found.results)
    compared = [name for name in models if _compared_with(name, found) is not None]
    return next(iter([*compared, *models]), None)


def models_of(results: Mapping[str, Any]) -> list[str]:
    """Returns the names of the models, without the true stories and the controls."""
    return [name for name in results if name != TRUE and name not in CONTROLS]


def _other(name: str, differences: Mapping[str, Any]) -> str | None:
    starts = (pair.removeprefix(name + AGAINST) for pair in differences if pair.startswith(name + AGAINST))
    return next(starts, None)


Clause = tuple[str, str, str]  # the words before the figure, the figure, and the words after it


def as_written(ways: Mapping[str, Any]) -> Way:
    """Returns the way of reading that is nearest to writing stories: token by token if that was measured."""
    return Way.TOKENS if Way.TOKENS.value in ways else Way.WINDOWS


def _loss(name: str, found: Evaluation) -> Clause | None:
    figures = found.results[name].get("loss")
    if figures is None:
        return None
    way, other = as_written(figures), _compared_with(name, found)
    read = ", read token by token as it writes stories" if way is Way.TOKENS else ""
    compared = "" if other is None else f", {difference_words(name, other, way, found.differences)}"
    return "it predicts the text with ", f"{interval(figures[way.value][BITS], '.3f')} {BITS}", read + compared


def _in_windows(name: str, found: Evaluation) -> Clause | None:
    """Returns what differs if a model rounds many tokens together, as in a prompt, and its rounding depends on that."""
    other = _compared_with(name, found)
    if other is None or as_written(found.results[name].get("loss", {})) is Way.WINDOWS:
        return None
    return "it needs ", "", f"{difference_words(name, other, Way.WINDOWS, found.differences)} if it reads whole windows"


def _compared_with(name: str, found: Evaluation) -> str | None:
    other = _other(name, found.differences)
    return None if other == name else other


def difference_words(name: str, other: str, way: Way, differences: Mapping[str, Any]) -> str:
    """Returns how many more bits per byte a model needs than another one, and whether that can be told from 0.

    Args:
        name: The model.
        other: The model that it is compared with.
        way: How both read the text.
        differences: The differences of an evaluation.
    """
    figures = differences[f"{name}{AGAINST}{other}"][way.value]
    share = figures["share"]
    if share["value"] == 0 and not share["error"]:
        return f"exactly as many as {other}"
    more, low, high = (100 * (share[part] or 0) for part in ("value", "low", "high"))
    form = form_of_difference(more, low, high)
    size, direction = f"{abs(more):{form}} %", "more" if more > 0 else "less"
    if share["low"] is None:
        told = "one story has no interval, so nobody can say whether the difference is real"
    elif figures["contains zero"]:
        seen = f"{figures['smallest difference']:.5f} {BITS} would have been found with a chance of 80 %"
        told = f"the difference cannot be told from 0; one of {seen}"
    else:
        told = f"the difference is real: its 95 % interval is {low:+{form}} % to {high:+{form}} %"
    return f"{size} {direction} than {other} ({told})"


def _pairs(suites: Mapping[str, Any]) -> Clause | None:
    accuracy = suites.get("pairs", {}).get("all", {}).get("accuracy")
    return None if accuracy is None else ("it gets ", percent(accuracy), " of the pairs of sentences right")


def _endings(name: str, results: Mapping[str, Any]) -> Clause | None:
    """Says how a model's endings are beside the true ones, with the figures that are not blind."""
    ours, true, blind = results[name].get("stories"), results.get(TRUE, {}).get("stories"), blind_figures(results)
    if ours is None or true is None:
        return None
    parts = [
        (percent(ours[figure]), f" {words} (true stories: {100 * true[figure]['value']:.1f} %)")
        for figure, words in OF_ENDINGS.items()
        if figure not in blind and _known(ours, figure) and _known(true, figure)
    ]
    if not parts:
        return None
    (figure, words), *others = parts
    more = "".join(f", and {value}{after}" for value, after in others)
    return "of its endings ", figure, words + more


def _known(figures: Mapping[str, Any], figure: str) -> bool:
    return figures.get(figure, {}).get("value") is not None


def _copies(name: str, results: Mapping[str, Any]) -> Clause | None:
    ours, true = (results.get(who, {}).get("novelty", {}).get("longest copy") for who in (name, TRUE))
    if ours is None or true is None:
        return None
    words = f" of the training text (true stories: {true['words']} words)"
    return "its longest copy is ", f"{ours['words']} words", words
