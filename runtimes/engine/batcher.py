"""Writes stories together. A story takes a row of a pool when its prompt has been read, and leaves it when it ends."""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass

from runtimes.engine.arrays import FloatArray
from runtimes.engine.generator import Generator
from runtimes.engine.pool import Pool
from runtimes.engine.prompt_cache import CachedPrompt, PromptCache
from runtimes.engine.scoring import TextScore
from runtimes.engine.story import Story
from runtimes.types import check_least

PREFILL_CHUNK = 128
SCORED_LOGITS = 2**18  # in one chunk of a text that is scored: 1 MiB
COPIES = 16  # this many positions that are copied count as one that is read


@dataclass(slots=True)
class _Reading:
    """A sequence that is being read: a prompt, a window of a full context, or a text that is scored."""

    work: Story | TextScore
    ids: list[int]
    prompt: CachedPrompt


class Batcher:
    """Stories that are written together. A story can be added at any time, and it joins the others between two steps.

    A prompt is read in chunks in a cache of its own, and then it is copied to the row of its story. So the running
    stories wait for one chunk at most. The beginning that a prompt shares with a running story or a recent prompt is
    copied, not read. Without `Generator.readings_agree`, only a whole prompt is copied.

    In float, a story is the one that it would be alone. In a variant without `independent_rows`, rounding depends on
    all rows. If reading a prompt or a step fails, the stories that it concerns end with the error in `Story.error`, and
    the others go on. Not thread-safe.

    Args:
        generator: The model.
        slots: The most stories that run at the same time, at most `generator.slots`.
        prefill_chunk: The most positions that are read between two steps; None reads all that wait.

    Attributes:
        steps: Number of steps of the model.
        prompt_tokens: Number of ids of all prompts and scored texts.
        reused_tokens: How many of them were copied instead of read.

    Raises:
        UsageError: There is no slot, or a chunk is less than one position.
        SlmxError: The generator is closed, or the variant writes one story at a time.
    """

    def __init__(self, generator: Generator, slots: int, prefill_chunk: int | None = PREFILL_CHUNK) -> None:
        check_least("slots", slots, 1)
        if prefill_chunk is not None:
            check_least("prefill chunk", prefill_chunk, 1)
        self._generator = generator
        self._chunk = sys.maxsize if prefill_chunk is None else prefill_chunk
        self._scored = min(self._chunk, max(1, SCORED_LOGITS // generator.bundle.config.vocab_size))
        self._begin_empty(generator.pool(slots))
        self.slots = self._pool.slots
        self.steps = self.prompt_tokens = self.reused_tokens = 0

    def _begin_empty(self, pool: Pool) -> None:
        self._pool = pool
        self._prompts = PromptCache(pool, self._generator.readings_agree)
        self._rows: list[Story] = []  # the story in each row of the pool
        self._waiting: deque[Story | TextScore] = deque()
        self._sliding: deque[Story] = deque()  # stories whose context is full. They left their rows to be read again.
        self._reading: _Reading | None = None

    def reset(self) -> None:
        """Removes all stories and all caches. They are not changed."""
        self._begin_empty(self._pool.another(self.slots))

    @property
    def running(self) -> int:
        """Number of stories and texts that have not ended."""
        return len(self._rows) + len(self._waiting) + len(self._sliding) + (self._reading is not None)

    @property
    def free(self) -> int:
        """Number of stories that can be added now without waiting for another to end."""
        return max(0, self.slots - self.running)

    def add(self, work: Story | TextScore) -> None:
        """Adds a story, or a text to score. Its prompt is read when all before it have been read and a row is free."""
        self._waiting.append(work)

    def drop(self, work: Story | TextScore) -> None:
        """Removes a story or a text at once, if it has not ended. It is not changed."""
        if self._reading is not None and self._reading.work is work:
            self._reading = None
        elif work in self._waiting:
            self._waiting.remove(work)
        elif isinstance(work, Story) and work in self._rows:
            self._leave(self._rows.index(work))
        elif isinstance(work, Story) and work in self._sliding:
            self._sliding.remove(work)

    def preempt(self, story: Story) -> None:
        """Removes a story that has ids and has not ended. If it is added again, its text is read again."""
        self.drop(story)
        story.preempt()

    def step(self) -> list[tuple[Story, str]]:
        """Reads at most one chunk of the prompts that wait, and then takes one step with all rows.

        Returns:
            The stories that advanced, each with its new text. A story can be there twice, with its first two ids. A
            story that has its `finish_reason` is no longer part of the batch.
        """
        advanced: list[tuple[Story, str]] = []
        if self._reading is not None or self._waiting or self._sliding:
            self._read(advanced)
        if self._rows:
            self._advance(advanced)
        return advanced

    def _read(self, advanced: list[tuple[Story, str]]) -> None:
        """Reads prompts until one chunk has been read, or no sequence is left that can have a row."""
        left = self._chunk
        while left > 0:
            reading = self._reading
            if reading is None:
                if (work := self._next()) is None:
                    return
                copied = self._begin(work, advanced)
                left -= -(-copied // COPIES)
                continue
            start = len(reading.prompt.ids)
            size = self._scored if isinstance(reading.work, TextScore) else self._chunk
            # Chunks end at fixed positions, so a prompt has the same logits whenever it is read.
            end = min(len(reading.ids), start - start % size + size)
            if end - start > left:
                return
            self._read_chunk(reading, end, advanced)
            left -= end - start

    def _next(self) -> Story | TextScore | None:
        """Takes the next sequence to read, or returns None if there is none that can have a row."""
        if self._sliding:
            return self._sliding.popleft()
        return self._waiting.popleft() if self._waiting and len(self._rows) < self.slots else None

    def _begin(self, work: Story | TextScore, advanced: list[tuple[Story, str]]) -> int:
        """Prepares the reading of a sequence. Returns the number of positions that were copied."""
        if isinstance(work, TextScore):
            self.prompt_tokens += len(work.ids)
            self._reading = _Reading(work, work.ids[:-1], self._prompts.take([]))
            return 0
        if work.window is not None:
            ids = work.window[:-1]  # the next step runs the last id
        else:
            ids = work.prompt_ids
            self.prompt_tokens += len(ids)
            known = self._prompts.find(ids)
            if known is not None and known.logits is not None:
                self._count_reused(work, len(ids))
                self._accept_first(work, known, known.logits, advanced)
                return len(ids)
        prompt = self._prompts.take(ids)
        if work.window is None:
            self._count_reused(work, len(prompt.ids))
        self._reading = _Reading(work, ids, prompt)
        return len(prompt.ids)

    def _count_reused(self, story: Story, count: int) -> None:
        story.reused_prompt_tokens = count
        self.reused_tokens += count

    def _read_chunk(self, reading: _Reading, end: int, advanced: list[tuple[Story, str]]) -> None:
        """Reads a sequence as far as `end`. Afterwards its story takes a row, if that is the whole sequence."""
        work, prompt = reading.work, reading.prompt
        chunk = reading.ids[len(prompt.ids) : end]
        if end == len(reading.ids):
            self._reading = None
        try:
            if isinstance(work, TextScore):
                work.accept(prompt.pool.score(0, chunk))
                return
            logits = prompt.pool.prefill(0, chunk) if chunk else None
        except Exception as error:
            self._reading = None
            prompt.clear()
            self._fail(work, error, advanced)
            return
        if self._reading is not None:
            return
        if work.window is not None:
            self._join(work, prompt)
        elif logits is not None:
            self._accept_first(work, prompt, logits.copy(), advanced)

    def _accept_first(
        self, story: Story, prompt: CachedPrompt, logits: FloatArray, advanced: list[tuple[Story, str]]
    ) -> None:
        """Chooses the first id of a story after its prompt, which is kept."""
        try:
            advanced.append((story, story.accept(logits)))
        except Exception as error:
            prompt.clear()
            self._fail(story, error, advanced)
            return
        prompt.logits = logits
        if story.window is not None:
            self._sliding.append(story)
        elif story.finish_reason is None:
            self._join(story, prompt)

    def _join(self, story: Story, prompt: CachedPrompt) -> None:
        """Gives a story a row with the positions that were read for it."""
        self._pool.add(0, len(prompt.ids), prompt.pool)
        self._rows.append(story)

    def _advance(self, advanced: list[tuple[Story, str]]) -> None:
        """Takes one step with all rows. The stories that end leave."""
        rows = self._rows
        try:
            logits = self._pool.step([story.ids[-1] for story in rows])
        except Exception as error:
            for row in reversed(range(len(rows))):
                self._fail(rows[row], error, advanced)
                self._leave(row)
            return
        self.steps += 1
        # From the last row to the first, because the last row moves to a free place and must already be done.
        for row in range(len(rows) - 1, -1, -1):
            story = rows[row]
            try:
                advanced.append((story, story.accept(logits[row])))
            except Exception as error:
                self._fail(story, error, advanced)
            if story.finish_reason is not None:
                self._leave(row)
            elif story.window is not None:
                self._leave(row)
                self._sliding.append(story)

    def _leave(self, row: int) -> None:
        """Frees a row. The last row takes its place."""
        self._pool.remove(row)
        self._rows[row] = self._rows[-1]
        self._rows.pop()

    def _fail(self, work: Story | TextScore, error: Exception, advanced: list[tuple[Story, str]]) -> None:
        """Ends a story or the score of a text with an error."""
        if isinstance(error, FloatingPointError):
            error = self._generator.damaged()
        if isinstance(work, Story):
            advanced.append((work, work.fail(error)))
        else:
            work.error = error
