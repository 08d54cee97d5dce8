"""Stories that are written together, all of them to their end."""

from __future__ import annotations

from collections.abc import Sequence

from runtimes.engine.generator import Generator
from runtimes.types import Completion, GenerationConfig, SamplingParams


def whole_batch(
    generator: Generator, prompts: Sequence[str], config: GenerationConfig, sampling: SamplingParams
) -> list[Completion]:
    """Writes a story for each prompt with `Generator.batch`, which keeps what it has after Ctrl-C.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed. Parts of stories are never measured.
    """
    stories = generator.batch(prompts, config, sampling)
    if any(story.stats.finish_reason == "interrupted" for story in stories):
        raise KeyboardInterrupt
    return stories
