"""Generates text: a prompt is encoded, read in one run and continued token by token."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Literal, overload

from runtimes.beginnings import shared_length
from runtimes.bundle.pin import find_pin
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from runtimes.engine.pool import Pool
from runtimes.engine.prompt import read_prompt
from runtimes.engine.session import Session
from runtimes.engine.story import Story
from runtimes.engine.stream import Stream
from runtimes.system.machine import this_cpu
from runtimes.types import (
    MAX_STORIES,
    Completion,
    GenerationConfig,
    SamplingParams,
    Settings,
    check_least,
    check_number,
    check_prompt,
    read_settings,
)
from slm.console.errors import SlmxError, UsageError
from slm.tokenizers.tokenizer import Tokenizer, check_id

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from runtimes.engine.banned_words import BannedWords

SLOTS = 64
KEPT_BANS = 8  # sets of banned words whose ids are kept for the next stories
KEPT_SESSIONS = 4  # sessions of ended streams that are kept for the next streams


def _banned_words(tokenizer: Tokenizer, words: tuple[str, ...]) -> BannedWords:
    from runtimes.engine.banned_words import BannedWords

    return BannedWords([tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)], words)


class Generator:
    """Writes stories with one variant of a bundle.

    Thread-safe: every stream and every batch has a separate cache of the same model.

    Args:
        bundle: An opened bundle.
        variant: A name in its manifest; default: the one for its target.
        threads: Threads of onnxruntime, 1 to 256; default: by the size of the model. Without `variant` and `threads`,
            what `slmx doctor --pin` chose for this bundle is taken, if it did.
        allow_special: Whether special tokens in a prompt, such as `<|endoftext|>`, have their own ids. If not, they are
            plain text.
        slots: The most stories at the same time: streams that have begun, and rows of each batch.

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
        check_least("slots", slots, 1)
        self.bundle = bundle
        self.allow_special = allow_special
        self.slots = slots
        if variant is None and threads is None and (pin := find_pin(bundle, this_cpu())):
            variant, threads = pin.variant, pin.threads
        self.variant = bundle.choose(variant)
        self.tokenizer = bundle.tokenizer()
        self._banned_words = lru_cache(KEPT_BANS)(partial(_banned_words, self.tokenizer))
        name = bundle.model_location(self.variant)
        model = Session.open(bundle.model_bytes(self.variant), bundle.config, threads, name)
        self._model: Session | None = model
        self.threads = model.threads
        self._lock = threading.Lock()
        # A garbage-collected stream can return its session at any moment, even while this thread holds the lock. So
        # return_session takes no lock. It uses only atomic operations on lists and sets.
        self._idle: list[Session] = [model]
        self._busy: set[Session] = set()

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the model. Unfinished streams end with an error. It may be called twice."""
        with self._lock:
            self._model = None
            self._idle.clear()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._model is None

    def require_open(self) -> Session:
        """Returns the session that opened the model; SlmxError if this generator is closed."""
        if self._model is None:
            raise SlmxError("this generator is closed: load the bundle again")
        return self._model

    def take_session(self, ids: list[int]) -> Session:
        """Takes the unused session whose cache has the longest common beginning with `ids`.

        Raises:
            SlmxError: All slots are taken, or the generator is closed.
        """
        with self._lock:
            model = self.require_open()
            if len(self._busy) >= self.slots:
                raise SlmxError(
                    f"all {self.slots} slots are taken by unfinished streams: finish or close one, or load with more"
                )
            if self._idle:
                session = max(self._idle, key=lambda session: shared_length(session.ids, ids))
                self._idle.remove(session)
            else:
                session = model.fork(0)
            self._busy.add(session)
            return session

    def return_session(self, session: Session) -> None:
        """Returns a session to the generator. It may be called from a finalizer."""
        self._busy.discard(session)
        if len(self._idle) < KEPT_SESSIONS and not self.closed:
            self._idle.append(session)

    def pool(self, rows: int) -> Pool:
        """Returns an empty pool for `rows` stories, at most `slots`.

        Raises:
            SlmxError: The generator is closed, or the variant writes one story at a time.
        """
        rows = min(rows, self.slots)
        with self._lock:
            return Pool(self.require_open(), rows)

    def damaged(self) -> SlmxError:
        """Returns the error for logits that are NaN or infinite."""
        others = [name for name in self.bundle.variants if name != self.variant]
        advice = f"export the bundle again{', or take --variant ' + ' or '.join(others) if others else ''}"
        return SlmxError(f"{self.variant}: its logits are no numbers; its weights are damaged or overflow: {advice}")

    @property
    def readings_agree(self) -> bool:
        """Whether a text has the same logits however it is read, in other parts or step by step, except for rounding.

        It is so in variants that compute in float. The others round activations, so what they read changes the rounding
        (docs/quantization.md).
        """
        return VARIANTS[self.variant].is_float

    def tokenize(self, text: str) -> list[int]:
        """Returns the ids of a text, without the start token; SlmxError if the text is not valid Unicode."""
        check_prompt(text)
        return self.tokenizer.encode(text, self.allow_special)

    def detokenize(self, ids: Sequence[int]) -> str:
        """Returns the text of ids. Bytes that are not UTF-8 become U+FFFD.

        Special tokens, such as that of the id `tokenizer.end_of_text`, have no text.

        Raises:
            SlmxError: An id is not in the vocabulary.
        """
        return self.tokenizer.decode(ids)

    def encode(self, prompt: str | Sequence[int], on_full: str = "stop") -> list[int]:
        """Returns the ids that the model reads for a prompt. Arguments and errors are those of `read_prompt`."""
        return read_prompt(self.tokenizer, prompt, self.bundle.config.block_size, on_full, self.allow_special)

    def story(self, prompt: str | Sequence[int], config: GenerationConfig, sampling: SamplingParams) -> Story:
        """Returns the state of a new story.

        Args:
            prompt: A text, or the ids of its tokens. The token that begins every story is put in front of ids that do
                not begin with it.
            config: Where the story ends.
            sampling: How ids are chosen.

        Raises:
            SlmxError: As in `encode`, or the vocabulary lacks an id of `stop_token_ids` or `logit_bias`.
        """
        ids = self.encode(prompt, config.on_full)
        text = prompt if isinstance(prompt, str) else self.detokenize(prompt)
        for name, named in (("logit bias", sampling.rules.logit_bias), ("stop token ids", config.stop_token_ids)):
            check_id(max(named, default=0), self.tokenizer.vocab_size, name)
        end, block_size = self.tokenizer.end_of_text, self.bundle.config.block_size
        drop_space = self.tokenizer.drops_space_after(ids)
        words = tuple(sampling.rules.ban_words)
        banned = self._banned_words(words).begin(text) if words else None
        return Story(text, ids, config, sampling, end, self.tokenizer.token_bytes, block_size, drop_space, banned)

    def stream(
        self,
        prompt: str = "",
        config: GenerationConfig | None = None,
        sampling: SamplingParams | None = None,
        reuse: bool | None = None,
    ) -> Stream:
        """Begins a story.

        Args:
            prompt: The beginning of the story; may be empty.
            config: Where the story ends.
            sampling: How ids are chosen.
            reuse: Whether the prompt reuses the positions that it shares with an earlier story. The default is True for
                float variants (`readings_agree`). The others round differently if a position is read in another run, so
                the same seed can write another story.

        Returns:
            The story, which is written as it is read.

        Raises:
            SlmxError: The prompt is not valid Unicode or leaves no room in the context, or the generator is closed.
        """
        self.require_open()
        story = self.story(prompt, config or GenerationConfig(), sampling or SamplingParams())
        return Stream(self, story, self.readings_agree if reuse is None else reuse)

    def batch(
        self, prompts: Sequence[str], config: GenerationConfig | None = None, sampling: SamplingParams | None = None
    ) -> list[Completion]:
        """Writes a story for each prompt, all together.

        Story i draws with seed + i. If there are more prompts than slots, some wait until a slot is free. Ctrl-C ends
        the stories that are being written and keeps their text.

        In float, a prompt and a seed give the same story as alone. In int8, rounding depends on the whole batch. The
        same batch gives the same stories, but another batch can give other stories.

        Args:
            prompts: The beginnings of the stories.
            config: Where the stories end.
            sampling: How ids are chosen.

        Returns:
            The stories in the order of their prompts.

        Raises:
            SlmxError: As in `stream`, or there are no prompts, or the variant writes one story at a time.
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
        """Writes a story, or several.

        Args:
            prompt: The beginning of the story; may be empty.
            stream: Whether to return a Stream, which yields the text as it is written.
            n: The number of stories to write together. Story i draws with seed + i.
            **settings: Any of `runtimes.types.Settings`. `GenerationConfig`, `SamplingParams` and `LogitsRules`
                describe them and their defaults.

        Returns:
            A Completion, a Stream if `stream`, or a list if `n` is given.

        Raises:
            SlmxError: A value is out of range, or as in `stream` and `batch`.
            TypeError: A name is not a setting.
        """
        config, sampling = read_settings(**settings)
        if n is not None:
            check_number("n", n, whole=True)
            if stream or not 1 <= n <= MAX_STORIES:
                raise UsageError(f"n is the number of stories, 1 to {MAX_STORIES:,}, and they cannot be streamed")
            return self.batch([prompt] * n, config, sampling)
        story = self.stream(prompt, config, sampling)
        if stream:
            return story
        for _ in story:
            pass
        return story.completion
