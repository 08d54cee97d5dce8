"""Writes stories with the model that is evaluated, one after the other."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.evaluation.subject import Subject
from runtimes.engine.story import Story
from runtimes.types import GenerationConfig, SamplingParams


@dataclass(frozen=True)
class Written:
    """A continuation.

    Attributes:
        text: The text after the beginning.
        ended: Whether the model ended it. If not, the context was full.
    """

    text: str
    ended: bool


def write(subject: Subject, beginning: str, seed: int, sampling: SamplingParams) -> Written:
    """Continues a beginning until the story or the context ends.

    Args:
        subject: The model.
        beginning: How the story begins.
        seed: The seed of this story.
        sampling: How ids are chosen. Its seed is not used.

    Raises:
        SlmxError: The beginning does not fit the context, or the logits are NaN or infinite.
    """
    tokenizer, session = subject.tokenizer, subject.session
    ids = [tokenizer.begin, *tokenizer.encode(beginning)]
    story = Story(
        beginning,
        ids,
        GenerationConfig(),
        replace(sampling, seed=seed),
        tokenizer.end_of_text,
        tokenizer.token_bytes,
        subject.config.block_size,
    )
    session.reset()
    story.start()
    story.accept(session.prefill(ids))
    while story.finish_reason is None:
        story.accept(session.step(story.ids[-1]))
    return Written(story.completion().completion_text, story.finish_reason == "stop")
