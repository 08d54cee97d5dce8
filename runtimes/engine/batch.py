"""Writes the stories of several prompts together."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

from runtimes.engine.batcher import Batcher
from runtimes.engine.generator import Generator
from runtimes.engine.sampler import system_seed
from runtimes.types import Completion, GenerationConfig, SamplingParams
from slm.console.errors import SlmxError


class Batch:
    """Stories that are written together. Arguments and errors are those of `Generator.batch`. Not thread-safe."""

    def __init__(
        self,
        generator: Generator,
        prompts: Sequence[str],
        config: GenerationConfig | None = None,
        sampling: SamplingParams | None = None,
    ) -> None:
        config, sampling = config or GenerationConfig(), sampling or SamplingParams()
        if not prompts:
            raise SlmxError("no prompts: give at least one")
        seed = system_seed() if sampling.seed is None else sampling.seed
        self._stories = [
            generator.story(prompt, config, replace(sampling, seed=seed + number))
            for number, prompt in enumerate(prompts)
        ]
        self._batcher = Batcher(generator, len(prompts), prefill_chunk=None)

    @property
    def completions(self) -> list[Completion]:
        """The current stories, in the order of their prompts."""
        return [story.completion() for story in self._stories]

    def run(self) -> Iterator[Completion]:
        """Writes all stories and yields them in the order of their prompts, each when it and all before it have ended.

        Ctrl-C ends the stories that are being written and keeps what they have.
        """
        unread = deque(self._stories)
        for story in self._stories:
            story.start()
            self._batcher.add(story)
        try:
            while unread:
                for story, _ in self._batcher.step():
                    if story.error is not None:
                        raise story.error
                while unread and unread[0].finish_reason is not None:
                    yield unread.popleft().completion()
        except KeyboardInterrupt:
            pass
        finally:
            for story in self._stories:
                story.interrupt()
        for story in unread:
            yield story.completion()
