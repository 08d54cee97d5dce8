"""Bad endings on purpose. A figure is worth something only if it puts the control that is made for it last."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from benchmarks.evaluation.continuations import NAME, Excerpt
from benchmarks.evaluation.stories import READ_BY_FIRST, Ending
from slm.data.stories import SENTENCE_BREAK

SEED = 1
STRANGERS = ("Zed", "Quinn", "Otto", "Ivy", "Hugo", "Nell")  # names that take the place of those of a story


def shuffled(excerpts: Sequence[Excerpt], training: Sequence[str]) -> list[Ending]:
    """Returns the sentences of the true ending in another order. They have the same words and the same variety."""
    rng = random.Random(SEED)
    endings = []
    for excerpt in excerpts:
        sentences = sentences_of(excerpt.ending)
        rng.shuffle(sentences)
        endings.append(Ending(excerpt.opening, " " + " ".join(sentences), True))
    return endings


def repeater(excerpts: Sequence[Excerpt], training: Sequence[str]) -> list[Ending]:
    """Repeats the first sentence of the true ending until the text is about as long as the true ending."""
    endings = []
    for excerpt in excerpts:
        (sentence, *_) = sentences_of(excerpt.ending)
        times = max(3, len(excerpt.ending) // max(1, len(sentence)))
        endings.append(Ending(excerpt.opening, " " + " ".join([sentence] * times), True))
    return endings


def copier(excerpts: Sequence[Excerpt], training: Sequence[str]) -> list[Ending]:
    """Returns the second half of a story of the training text, word for word."""
    rng = random.Random(SEED)
    stories = [rng.choice(training) for _ in excerpts]
    return [
        Ending(excerpt.opening, " " + story[len(story) // 2 :].partition(" ")[2], True)
        for excerpt, story in zip(excerpts, stories, strict=True)
    ]


def swapped_names(excerpts: Sequence[Excerpt], training: Sequence[str]) -> list[Ending]:
    """Returns the true ending with other names."""
    return [Ending(excerpt.opening, _swap(excerpt), True) for excerpt in excerpts]


def _swap(excerpt: Excerpt) -> str:
    story = excerpt.opening + excerpt.ending
    names = dict.fromkeys(found.group() for found in NAME.finditer(story))
    others = {name: STRANGERS[number % len(STRANGERS)] for number, name in enumerate(names)}
    return re.sub(r"[^\W\d_]+", lambda word: others.get(word.group(), word.group()), excerpt.ending)


def sentences_of(text: str) -> list[str]:
    """Returns the sentences of a text, each with its end mark, without the white space between them."""
    cuts = [0, *(found.end() for found in SENTENCE_BREAK.finditer(text)), len(text)]
    return [part for start, end in pairwise(cuts) if (part := text[start:end].strip())] or [text]


@dataclass(frozen=True)
class Control:
    """A control and the figure that must put it last.

    Attributes:
        write: Makes the endings, from the excerpts and the training text.
        suite: The suite that has the figure.
        figure: The figure.
        is_less: Whether the control must have less of it than the true stories, else more.
    """

    write: Callable[[Sequence[Excerpt], Sequence[str]], list[Ending]]
    suite: str
    figure: str
    is_less: bool


CONTROLS: Mapping[str, Control] = {
    "shuffled sentences": Control(shuffled, "stories", READ_BY_FIRST, False),
    "repeater": Control(repeater, "stories", "repeated 4-grams", False),
    "copier": Control(copier, "novelty", "mean longest copy", False),
    "swapped names": Control(swapped_names, "stories", "names kept", True),
}


def noticed(results: Mapping[str, Any]) -> dict[str, bool]:
    """Returns, for each control that was measured, whether its figure puts it last, after every model and true story.

    Args:
        results: The figures by model, true stories and control, and by suite.
    """
    found = {}
    for name, control in CONTROLS.items():
        values = {
            column: -value if control.is_less else value
            for column, suites in results.items()
            if (value := _value(suites.get(control.suite, {}).get(control.figure))) is not None
        }
        others = [value for column, value in values.items() if column not in CONTROLS]
        if name in values and others:
            found[name] = values[name] > max(others)
    return found


def _value(figure: object) -> float | None:
    value = figure.get("value") if isinstance(figure, dict) else figure
    return float(value) if isinstance(value, int | float) else None
