"""Writes several stories together. A story takes a row of a pool when one is free, and frees it when it ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

from runtimes.engine.cache import FloatArray
from runtimes.engine.generator import Generator
from runtimes.engine.pool import Pool
from runtimes.engine.sampler import system_seed
from runtimes.engine.story import Story
from runtimes.types import Completion, GenerationConfig, SamplingParams
from slm.errors import SlmxError


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
        self._generator = generator
        self._pool = generator.pool(len(prompts))
        self._running: list[Story] = []  # the story in each row of the pool
        self._last_read: tuple[list[int], FloatArray] | None = None

    @property
    def completions(self) -> list[Completion]:
        """The current stories, in the order of their prompts."""
        return [story.completion() for story in self._stories]

    def run(self) -> Iterator[Completion]:
        """Write all stories and yield them in the order of their prompts, each when it and all before it have ended.

        Ctrl-C ends the stories that are being written and keeps what they have.
        """
        waiting, unread = deque(self._stories), deque(self._stories)
        for story in waiting:
            story.start()
        try:
            while unread:
                while waiting and len(self._running) < self._pool.slots:
                    self._admit(waiting.popleft())
                if self._running:
                    self._step()
                while unread and unread[0].finish_reason is not None:
                    yield unread.popleft().completion()
        except FloatingPointError:
            raise self._generator.damaged() from None
        except KeyboardInterrupt:
            pass
        finally:
            for story in self._stories:
                story.interrupt()
        for story in unread:
            yield story.completion()

    def _admit(self, story: Story) -> None:
        """Reads a prompt in a new row and chooses the first id of the story."""
        logits = self._read(story.prompt_ids)
        story.accept(logits)
        if story.finish_reason is None:
            self._running.append(story)
        else:
            self._pool.remove(len(self._running))

    def _read(self, ids: list[int]) -> FloatArray:
        """Reads ids in a new row.

        A float model copies the longest beginning that another row has. An int8 model rounds differently when it reads
        a prompt in parts, so it copies only the whole prompt that was read last.
        """
        pool = self._pool
        source, shared = pool.best_prefix(ids)
        if shared == len(ids) and self._last_read is not None and self._last_read[0] == ids:
            pool.add(source, shared)
            return self._last_read[1]
        shared = min(shared, len(ids) - 1) if self._generator.is_float else 0
        logits = pool.prefill(pool.add(source, shared), ids[shared:])
        self._last_read = ids, logits
        return logits

    def _step(self) -> None:
        """Takes one step with all rows, and removes the stories that end."""
        running, pool = self._running, self._pool
        for row, story in enumerate(running):
            if story.window is not None:
                _slide(pool, row, story.window)
        logits = pool.step([story.ids[-1] for story in running])
        # From the last row to the first, because the last row moves to a free place and must already be done.
        for row in reversed(range(len(running))):
            running[row].accept(logits[row])
            if running[row].finish_reason is not None:
                pool.remove(row)
                running[row] = running[-1]
                running.pop()


def _slide(pool: Pool, row: int, window: list[int]) -> None:
    """Replaces a row by the ids that remain of a full context, except the last id, which the next step runs."""
    pool.rewind(row, 0)
    if len(window) > 1:
        pool.prefill(row, window[:-1])
