"""A story that is written while it is read."""

from __future__ import annotations

import collections.abc
import inspect
from typing import TYPE_CHECKING

from runtimes.engine.story import Story
from runtimes.types import Completion, GenerationStats
from slm.console.errors import SlmxError

if TYPE_CHECKING:
    from runtimes.engine.generator import Generator


class Stream:
    """A story that is being written: an iterator over its pieces of text.

    A piece is returned as soon as its bytes are whole characters and cannot be part of a stop string. A new iteration
    continues where the last one stopped. The story takes a slot of its generator when its first piece is requested. It
    returns the slot when it ends, is closed or is garbage-collected. Streams of one generator may be read in turn and
    by several threads. Only one thread may read a stream at a time.
    """

    def __init__(self, generator: Generator, story: Story, reuse: bool) -> None:
        self._generator = generator
        self._story = story
        self._pieces = _write(generator, story, reuse)

    def __iter__(self) -> Stream:
        """Returns the stream itself."""
        return self

    def __next__(self) -> str:
        """Returns the next piece of text.

        Raises:
            SlmxError: The generator is closed, all its slots are taken, another thread is reading this stream, or
                the logits are NaN or infinite.
        """
        if self._generator.closed:
            self._pieces.close()
            self._generator.require_open()
        try:
            return next(self._pieces)
        except ValueError:
            self._require_unread()
            raise

    def _require_unread(self) -> None:
        """Raises SlmxError if another thread is reading this stream."""
        if inspect.getgeneratorstate(self._pieces) == inspect.GEN_RUNNING:
            raise SlmxError("another thread is reading this stream: give each thread its own")

    @property
    def ids(self) -> list[int]:
        """The ids written so far."""
        return self._story.ids

    @property
    def prompt_ids(self) -> list[int]:
        """The ids of the prompt, including the start token."""
        return self._story.prompt_ids

    @property
    def logprobs(self) -> list[float]:
        """The log-probabilities of the ids written so far, if they were asked for."""
        return self._story.logprobs

    @property
    def stats(self) -> GenerationStats:
        """The figures so far. The reason is "interrupted" until the story has ended."""
        return self._story.completion().stats

    @property
    def completion(self) -> Completion:
        """The story so far."""
        return self._story.completion()

    def close(self) -> str:
        """Ends the story now, frees its slot and returns the text that was held back. It may be called twice.

        Raises:
            SlmxError: Another thread is reading this stream.
        """
        self._require_unread()
        self._pieces.close()
        return self._story.interrupt()


def _write(generator: Generator, story: Story, reuse: bool) -> collections.abc.Generator[str, None, None]:
    """Writes a story in a separate session.

    This is not a method of Stream, because it must not hold a reference to the stream. Then the stream is closed, and
    its session is free, as soon as its last user drops it.
    """
    session = generator.take_session(story.prompt_ids)
    try:
        if not reuse:
            session.reset()
        story.start()
        story.reused_prompt_tokens = session.share(story.prompt_ids)
        logits = session.prefill(story.prompt_ids[story.reused_prompt_tokens :])
        while True:
            piece = story.accept(logits)
            if piece:
                yield piece
            if story.finish_reason is not None:
                return
            logits = session.step(story.ids[-1]) if story.window is None else session.read(story.window)
    except FloatingPointError:
        raise generator.damaged() from None
    finally:
        generator.return_session(session)
