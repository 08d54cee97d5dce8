"""Text in, text out: a prompt is encoded, read in one run and continued token by token."""

from __future__ import annotations

import collections.abc
import inspect
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, overload

from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from runtimes.engine.pool import Pool
from runtimes.engine.session import Session, default_threads, shared_length
from runtimes.engine.story import Story, slide
from runtimes.types import (
    MAX_STORIES,
    Completion,
    GenerationConfig,
    GenerationStats,
    SamplingParams,
    Settings,
    read_settings,
)
from slm.errors import SlmxError, UsageError

if TYPE_CHECKING:
    from typing import Unpack

SLOTS = 64
KEPT_SESSIONS = 4  # caches that are kept for the next stream after their own has ended


class Stream:
    """A story being written: an iterator over its pieces of text.

    A piece is returned as soon as its bytes are whole characters and part of no stop string. Iterating again goes on
    where the iteration stopped. The story takes a slot of its generator when the first piece is asked for; it gives
    the slot back when it ends, is closed or is garbage-collected. Streams of one generator may be read in turn and
    from several threads; one stream belongs to one thread at a time.
    """

    def __init__(self, generator: Generator, story: Story, reuse: bool) -> None:
        self._generator = generator
        self._story = story
        self._pieces = _write(generator, story, reuse)

    def __iter__(self) -> Stream:
        """The stream itself."""
        return self

    def __next__(self) -> str:
        """The next piece of text.

        Raises:
            SlmxError: The generator is closed, all its slots are taken, another thread is reading this stream, or
                the logits are no numbers.
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
        """Raise SlmxError if another thread is reading this stream."""
        if inspect.getgeneratorstate(self._pieces) == inspect.GEN_RUNNING:
            raise SlmxError("another thread is reading this stream: give each thread its own")

    @property
    def ids(self) -> list[int]:
        """The ids written so far."""
        return self._story.ids

    @property
    def prompt_ids(self) -> list[int]:
        """The ids of the prompt, the start token included."""
        return self._story.prompt_ids

    @property
    def logprobs(self) -> list[float]:
        """The log-probabilities of the ids written so far, if they were asked for."""
        return self._story.logprobs

    @property
    def stats(self) -> GenerationStats:
        """Figures so far; the reason is "interrupted" until the story has ended."""
        return self._story.completion().stats

    @property
    def completion(self) -> Completion:
        """The story so far."""
        return self._story.completion()

    def close(self) -> str:
        """End the story now and give its slot back; returns the text that was held back. May be called twice.

        Raises:
            SlmxError: Another thread is reading this stream.
        """
        self._require_unread()
        self._pieces.close()
        return self._story.interrupt()


def _write(generator: Generator, story: Story, reuse: bool) -> collections.abc.Generator[str, None, None]:
    """Write a story in a session of its own.

    This is a function and not a method of Stream: without a reference to the stream, the stream's last reference
    closes it at once, and its session is free.
    """
    session = generator.take_session(story.prompt_ids)
    try:
        if not reuse:
            session.reset()
        story.start()
        logits = session.read(story.prompt_ids)
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


class Generator:
    """Writes stories with one variant of a bundle.

    Thread-safe: every stream and every batch has a cache of its own over the same model.

    Args:
        bundle: An opened bundle.
        variant: A name in its manifest; default: the one for its target.
        threads: Threads of onnxruntime, 1 to 256; default: by the size of the model.
        allow_special: Whether `<|endoftext|>` in a prompt is the token instead of text.
        slots: Stories at most that are written at the same time: streams that have begun, and rows of each batch.

    Raises:
        SlmxError: The bundle has no such variant, onnxruntime cannot open it, or a number is out of range.
    """

    def __init__(
        self,
        bundle: Bundle,
        variant: str | None = None,
        threads: int | None = None,
        allow_special: bool = False,
        slots: int = SLOTS,
    ) -> None:
        if slots < 1:
            raise UsageError(f"slots must be at least 1, not {slots}")
        self.bundle = bundle
        self.allow_special = allow_special
        self.slots = slots
        self.variant = bundle.choose(variant)
        self.tokenizer = bundle.tokenizer()
        self._token_bytes = self.tokenizer.encoding.decode_single_token_bytes
        self._chosen_threads = threads
        first = self._open(1)
        self.threads = first.threads
        self._lock = threading.Lock()
        self._models = {first.threads: first}  # a session of the model for each number of threads
        # A stream that is garbage-collected returns its session at any moment, even while this thread holds the lock.
        # So return_session takes no lock: it uses only operations on lists and sets that are atomic.
        self._idle: list[Session] = [first]
        self._busy: set[Session] = set()
        self.closed = False

    def _open(self, rows: int) -> Session:
        config = self.bundle.config
        threads = default_threads(config, rows) if self._chosen_threads is None else self._chosen_threads
        name = self.bundle.model_location(self.variant)
        return Session.open(self.bundle.model_bytes(self.variant), config, threads, name)

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the model; streams that are not finished end with an error. May be called twice."""
        with self._lock:
            self.closed = True
            self._models.clear()
            self._idle.clear()

    def require_open(self) -> None:
        """Raise SlmxError if this generator is closed."""
        if self.closed:
            raise SlmxError("this generator is closed: load the bundle again")

    def take_session(self, ids: list[int]) -> Session:
        """An unused session, the one whose cache shares most with these ids; SlmxError if all slots are taken."""
        with self._lock:
            self.require_open()
            if len(self._busy) >= self.slots:
                raise SlmxError(
                    f"all {self.slots} slots are taken by unfinished streams: finish or close one, or load with more"
                )
            if self._idle:
                session = max(self._idle, key=lambda session: shared_length(session.ids, ids))
                self._idle.remove(session)
            else:
                session = self._models[self.threads].fork(0)
            self._busy.add(session)
            return session

    def return_session(self, session: Session) -> None:
        """Give a session back. May be called from a finalizer."""
        self._busy.discard(session)
        if len(self._idle) < KEPT_SESSIONS and not self.closed:
            self._idle.append(session)

    def pool(self, rows: int) -> Pool:
        """An empty pool for that many stories, at most `slots`, on more threads if so many rows are worth them.

        Raises:
            SlmxError: The generator is closed, or the variant writes one story at a time.
        """
        rows = min(rows, self.slots)
        with self._lock:
            self.require_open()
            threads = default_threads(self.bundle.config, rows) if self._chosen_threads is None else self.threads
            if threads not in self._models:
                self._models[threads] = self._open(rows)
            return Pool(self._models[threads], rows)

    def damaged(self) -> SlmxError:
        """The error for logits that are NaN or infinite."""
        return SlmxError(
            f"{self.variant}: its logits are no numbers; its weights are damaged or overflow: export the bundle "
            f"again, or take another of {', '.join(self.bundle.variants)}"
        )

    @property
    def is_float(self) -> bool:
        """Whether a position's logits do not depend on what is read together with it, except for rounding."""
        return VARIANTS[self.variant].is_float

    def tokenize(self, text: str) -> list[int]:
        """The ids of a text, without the start token; SlmxError for a text that is not valid Unicode."""
        _check_unicode(text)
        return self.tokenizer.encode(text, self.allow_special)

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of ids; bytes that are not UTF-8 become U+FFFD. SlmxError for an id that is not in the vocabulary.

        The end of the text has the id `tokenizer.end_of_text` and no text.
        """
        return self.tokenizer.decode(ids)

    def encode(self, prompt: str, on_full: str = "stop") -> list[int]:
        """The ids of a prompt after the token that begins every story.

        Args:
            prompt: A text.
            on_full: "slide" keeps the beginning and the end of a prompt that is longer than the context.

        Raises:
            SlmxError: The prompt is not valid Unicode, or is longer than the context.
        """
        size = _check_unicode(prompt)
        block_size, start = self.bundle.config.block_size, [self.tokenizer.end_of_text]
        # A text of more bytes than this has more than block_size tokens. It is never encoded as a whole.
        longest = block_size * self.tokenizer.longest_token
        if on_full == "slide":
            if size > 2 * longest:
                head, tail = self.tokenize(prompt[:longest]), self.tokenize(prompt[-longest:])
                return slide([*start, *head], tail, block_size)
            ids = [*start, *self.tokenize(prompt)]
            return slide(ids, [], block_size) if len(ids) > block_size else ids
        ids = [*start, *self.tokenize(prompt)] if size <= longest else []
        if not ids or len(ids) > block_size:
            tokens = f"{len(ids)} tokens long with its start token" if ids else f"far too long ({size:,} bytes)"
            raise SlmxError(
                f"the prompt is {tokens}, the context holds {block_size} tokens; shorten it, or set on-full to slide"
            )
        return ids

    def story(self, prompt: str, config: GenerationConfig, sampling: SamplingParams) -> Story:
        """The state of a new story; errors as in `encode`."""
        ids = self.encode(prompt, config.on_full)
        end, block_size = self.tokenizer.end_of_text, self.bundle.config.block_size
        return Story(prompt, ids, config, sampling, end, self._token_bytes, block_size)

    def stream(
        self,
        prompt: str = "",
        config: GenerationConfig | None = None,
        sampling: SamplingParams | None = None,
        reuse: bool | None = None,
    ) -> Stream:
        """Begin a story.

        Args:
            prompt: How the story begins; an empty one starts from nothing.
            config: Where the story ends.
            sampling: How ids are chosen.
            reuse: Whether the positions that the prompt shares with an earlier story are not read again. The default
                is True for float variants. int8 and int4 round a prompt that is read in parts differently, so the
                same seed can write another story.

        Raises:
            SlmxError: The prompt is not valid Unicode or leaves no room in the context, or the generator is closed.
        """
        self.require_open()
        story = self.story(prompt, config or GenerationConfig(), sampling or SamplingParams())
        return Stream(self, story, self.is_float if reuse is None else reuse)

    def batch(
        self, prompts: Sequence[str], config: GenerationConfig | None = None, sampling: SamplingParams | None = None
    ) -> list[Completion]:
        """Write a story for each prompt, together.

        Story i draws with seed + i. More prompts than slots wait until a slot is free. Ctrl-C ends the stories that
        are being written and keeps what they have.

        In float a story is the one that its prompt and seed give alone. int8 rounds by what shares the batch: the
        same batch gives the same stories, another batch can give others.

        Raises:
            SlmxError: As in `stream`; also for no prompts, and for a variant that writes one story at a time.
        """
        from runtimes.engine.batch import Batch

        return list(Batch(self, prompts, config, sampling).run())

    @overload
    def generate(
        self, prompt: str = "", *, stream: Literal[False] = False, n: None = None, **settings: Unpack[Settings]
    ) -> Completion: ...
    @overload
    def generate(
        self, prompt: str = "", *, stream: Literal[True], n: None = None, **settings: Unpack[Settings]
    ) -> Stream: ...
    @overload
    def generate(
        self, prompt: str = "", *, stream: Literal[False] = False, n: int, **settings: Unpack[Settings]
    ) -> list[Completion]: ...
    def generate(
        self, prompt: str = "", *, stream: bool = False, n: int | None = None, **settings: Unpack[Settings]
    ) -> Completion | Stream | list[Completion]:
        """Write a story, or several.

        Args:
            prompt: How the story begins; an empty one starts from nothing.
            stream: Return a Stream, which yields the text as it is written.
            n: Return a list of that many stories, written together; story i draws with seed + i.
            **settings: Any of `runtimes.types.Settings`, which are those of the command line; their meaning and
                defaults are in `GenerationConfig`, `SamplingParams` and `LogitsRules`.

        Returns:
            A Completion, a Stream if `stream`, or a list if `n` is given.

        Raises:
            SlmxError: A value is out of range, or as in `stream` and `batch`.
            TypeError: A name is not a setting.
        """
        config, sampling = read_settings(**settings)
        if n is not None:
            if stream or not 1 <= n <= MAX_STORIES:
                raise UsageError(f"n is the number of stories, 1 to {MAX_STORIES:,}, and they cannot be streamed")
            return self.batch([prompt] * n, config, sampling)
        story = self.stream(prompt, config, sampling)
        if stream:
            return story
        for _ in story:
            pass
        return story.completion


def _check_unicode(text: str) -> int:
    """The number of UTF-8 bytes of a text; SlmxError if it has lone surrogates, as bytes that were not UTF-8 become."""
    try:
        return len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise SlmxError("the prompt holds bytes that are not UTF-8 text; retype it, or convert it to UTF-8") from None
