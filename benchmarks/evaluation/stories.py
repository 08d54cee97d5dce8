"""The suite `stories`: endings that a model writes for beginnings of held-out stories, beside the true endings.

Every figure is measured on the same number of words, because all depend on the length, but for BLEU, chrF, the bits per
byte, the share that ends properly, and the figures that know English. These are left out for other languages.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.evaluation.continuations import (
    SENTENCE_END,
    Excerpt,
    Vocabulary,
    choose_excerpts,
    cut,
    describe,
    distinct,
    words_of,
)
from benchmarks.evaluation.intervals import Estimate, mean, share
from benchmarks.evaluation.reading import Advance
from benchmarks.evaluation.subject import Subject
from benchmarks.evaluation.writing import Written, write
from runtimes.engine.loss import log_softmax, negative_log_likelihood
from runtimes.types import SamplingParams
from slm.console.errors import needs

WORDS = 60  # of an ending that are measured
READ_BY_FIRST = "bits per byte, read by the first model"
FEWEST_REPLIES = 10  # in all endings together; the share of fewer says nothing
MOST_OF_SELF_BLEU = 50  # endings; the time grows with the square of their number
# A quotation and who says it: "..." said Tom. / "..." Tom said. / "..." she asked.
_SPEECH = "said|says|asked|replied|answered|shouted|cried|yelled|whispered"
_SAYS = re.compile(rf'["\u201d]\s*(?:(?:{_SPEECH})\s+([A-Z]\w+)|([A-Z]\w+)\s+({_SPEECH})\b)')
_REPLIES = ("replied", "answered")
_SENTENCE = re.compile(r"[.!?]+")


@dataclass(frozen=True)
class Ending:
    """What follows the beginning of a story.

    Attributes:
        opening: The beginning.
        text: The ending.
        ended: Whether the story ends there by itself.
    """

    opening: str
    text: str
    ended: bool


def openings(stories: Iterable[str], count: int, subjects: Sequence[Subject], words: int) -> list[Excerpt]:
    """Takes the first stories that can be compared: they fit the context of every model and have enough words.

    Raises:
        SlmxError: There is no such story.
    """

    def fits(story: str) -> bool:
        return all(len(subject.tokenizer.encode(story)) + 2 <= subject.config.block_size for subject in subjects)

    return choose_excerpts(stories, count, words, fits)


def write_endings(
    subject: Subject, excerpts: Sequence[Excerpt], sampling: SamplingParams, seed: int, advance: Advance
) -> list[Ending]:
    """Writes an ending for each beginning, number i with the seed `seed` + i."""
    endings = []
    for number, excerpt in enumerate(excerpts):
        written: Written = write(subject, excerpt.opening, seed + number, sampling)
        endings.append(Ending(excerpt.opening, written.text, written.ended))
        advance(1)
    return endings


def true_endings(excerpts: Sequence[Excerpt]) -> list[Ending]:
    """Returns the endings that the stories have."""
    return [Ending(excerpt.opening, excerpt.ending, True) for excerpt in excerpts]


def read_endings(subject: Subject, endings: Sequence[Ending]) -> list[float]:
    """Returns the bits per byte of each ending after its opening, as far as the context of the model reaches."""
    found, tokenizer = [], subject.tokenizer
    for ending in endings:
        opening = [tokenizer.begin, *tokenizer.encode(ending.opening)]
        ids = [*opening, *tokenizer.encode(ending.text)][: subject.config.block_size + 1]
        after = len(opening) - 1
        size = len(tokenizer.decode_bytes(ids[len(opening) :]))
        if not size:
            continue
        subject.session.reset()
        logits = subject.session.score(ids[:-1])[after:]
        targets = np.array(ids[len(opening) :], np.int64)
        found.append(negative_log_likelihood(log_softmax(logits), targets) / math.log(2) / size)
    return found


def measure_stories(
    endings: Sequence[Ending],
    true: Sequence[Ending],
    vocabulary: Vocabulary,
    reader: Subject,
    english: bool,
    words: int,
) -> dict[str, Any]:
    """Measures endings.

    Args:
        endings: The endings of a model, or the true ones.
        true: The true endings of the same beginnings.
        vocabulary: The words of the training text.
        reader: The model that reads all endings. It finds its own ones and repetitions likely.
        english: Whether the figures that know English are measured.
        words: The number of words of each ending that are measured.

    Returns:
        The figures for JSON, most with an interval over stories.
    """
    long = [(ending, piece) for ending in endings if (piece := cut(ending.text, words)) is not None]
    rows = [describe(ending.opening, piece, vocabulary) for ending, piece in long]
    pieces = [piece for _, piece in long]
    found: dict[str, Any] = {
        "endings": len(endings),
        "of at least the measured words": share(len(long), len(endings)).to_json(),
        "ends properly": share(sum(map(_is_whole, endings)), len(endings)).to_json(),
    }
    for name in rows[0] if rows else ():
        found[name] = _mean([row[name] for row in rows]).to_json()
    found |= _pooled(pieces)
    found[READ_BY_FIRST] = _mean(read_endings(reader, endings)).to_json()
    if english:
        found |= _english([ending.text for ending in endings])
    return found | overlap(endings, true)


def overlap(endings: Sequence[Ending], true: Sequence[Ending]) -> dict[str, Any]:
    """Returns BLEU and chrF against the true endings, with sacrebleu's signatures."""
    with needs("evaluate"):
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF

    found = {}
    for name, metric in (("BLEU", BLEU()), ("chrF", CHRF())):
        score = metric.corpus_score([ending.text for ending in endings], [[ending.text for ending in true]])
        found[name] = {"value": float(score.score), "signature": str(metric.get_signature())}
    return found


def _is_whole(ending: Ending) -> bool:
    return ending.ended and SENTENCE_END.search(ending.text) is not None


def _mean(values: Sequence[float]) -> Estimate:
    return mean(np.array([value for value in values if not math.isnan(value)], np.float64))


def _pooled(pieces: Sequence[str]) -> dict[str, Any]:
    """Returns the variety over all endings, each cut to the same number of words.

    No figure has an interval: each ending is a reference of the others in self-BLEU, so its scores are not independent.
    """
    with needs("evaluate"):
        from sacrebleu import sentence_bleu

    words = [word for piece in pieces for word in words_of(piece)]
    content = "\n".join(pieces).encode()
    found: dict[str, Any] = {f"distinct-{n} of all": distinct(words, n) for n in (1, 2, 3)}
    found["compressed, all"] = len(zlib.compress(content, 9)) / max(1, len(content))
    some = pieces[:MOST_OF_SELF_BLEU]
    others = [[other for place, other in enumerate(some) if place != number] for number in range(len(some))]
    scores = [sentence_bleu(piece, rest).score for piece, rest in zip(some, others, strict=True) if rest]
    return found | {"self-BLEU": math.fsum(scores) / len(scores) if scores else None}


def _english(texts: Sequence[str]) -> dict[str, Any]:
    """Returns the figures that know English."""
    slips = [found for text in texts for found in answers_to_oneself(text)]
    if len(slips) < FEWEST_REPLIES:
        slips = []
    return {
        "answers to oneself": share(sum(slips), len(slips)).to_json(),
        "readability": _mean([readability(text) for text in texts]).to_json(),
    }


def answers_to_oneself(text: str) -> list[bool]:
    """Returns, for each quotation that a name `replied` or `answered`, whether the one before is of the same name."""
    found, before = [], None
    for match in _SAYS.finditer(text):
        name = match[1] or match[2]
        verb = match[3] or match[0].split()[-2]
        if before is not None and verb.strip('"\u201d') in _REPLIES:
            found.append(name == before)
        before = name
    return found


def readability(text: str) -> float:
    """Returns the Automated Readability Index, about the school year of a reader (Smith and Senter, 1967)."""
    words = words_of(text)
    sentences = [part for part in _SENTENCE.split(text) if words_of(part)]
    if not words:
        return math.nan
    return 4.71 * sum(map(len, words)) / len(words) + 0.5 * len(words) / max(1, len(sentences)) - 21.43
