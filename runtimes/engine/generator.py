"""Text in, text out: a prompt is encoded, prefilled in one run and continued token by token."""

from __future__ import annotations

import codecs
import itertools
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from runtimes.engine.cache import FloatArray
from runtimes.engine.penalties import LogitsRules
from runtimes.engine.sampler import Sampler, SamplingParams, system_seed
from runtimes.engine.session import Session, default_threads
from runtimes.engine.stops import StopStrings
from slm.errors import SlmxError


@dataclass(frozen=True)
class GenerationStats:
    """Figures of one story; times in seconds, `tokens` counts those written after the prompt."""

    prompt_tokens: int
    tokens: int
    stop: str
    seed: int
    time_to_first_token: float
    decode_seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Rate of the steps after the first token; 0 when there was none."""
        return (self.tokens - 1) / self.decode_seconds if self.tokens > 1 and self.decode_seconds > 0 else 0.0


@dataclass(frozen=True)
class Completion:
    """A finished text, prompt included, its new ids and its figures."""

    text: str
    ids: list[int]
    summary: GenerationStats


def utf8_decoder() -> codecs.IncrementalDecoder:
    """Decodes UTF-8 as it comes, holding back unfinished characters; what is no UTF-8 becomes U+FFFD."""
    return codecs.getincrementaldecoder("utf-8")(errors="replace")


def whole_characters(chunks: Iterable[bytes]) -> Iterator[str]:
    """The text of bytes that come in pieces, as `utf8_decoder` decodes it."""
    decoder = utf8_decoder()
    for chunk in chunks:
        piece = decoder.decode(chunk)
        if piece:
            yield piece
    rest = decoder.decode(b"", final=True)
    if rest:
        yield rest


ON_FULL = ("stop", "slide")


@dataclass(frozen=True)
class GenerationConfig:
    """Where a story ends: `max_tokens` None goes on to its own end; `stop` strings are not part of it.

    When the context is full it stops, or with `on_full` "slide" forgets the middle: the prompt's beginning and the last
    half stay and are read again, for learned positions cannot be shifted. Then a prompt may be longer than the context
    too. With `logprobs` the log-probability of each id is kept. Raises SlmxError for values outside their range.
    """

    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    on_full: str = "stop"
    logprobs: bool = False

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise SlmxError(f"max tokens must be at least 1, not {self.max_tokens}")
        if self.on_full not in ON_FULL:
            raise SlmxError(f"on full must be one of {', '.join(ON_FULL)}, not {self.on_full!r}")
        StopStrings(self.stop)


def log_probability(logits: FloatArray, token: int) -> float:
    """Natural logarithm of an id's probability by the model itself, before any sampling rule."""
    highest = logits.max()
    return float(logits[token] - highest) - math.log(float(np.exp(logits - highest).sum(dtype=np.float64)))


def no_numbers(generator: Generator) -> SlmxError:
    """What to say of logits that are NaN."""
    return SlmxError(
        f"{generator.variant}: its logits are no numbers; its weights are damaged or overflow: export the bundle "
        f"again, or take another of {', '.join(generator.bundle.variants)}"
    )


def slide(prompt_ids: list[int], ids: list[int], block_size: int) -> list[int]:
    """What stays of a full context: the first ids of the prompt, at most a quarter of it, and the last, half of it."""
    return [*prompt_ids[: block_size // 4], *[*prompt_ids, *ids][-(block_size // 2) :]]


class Stream:
    """A story being written: iterate over its pieces of text, then read `ids` and `summary`."""

    def __init__(
        self,
        generator: Generator,
        prompt_ids: list[int],
        limits: GenerationConfig,
        sampling: SamplingParams,
        reuse: bool,
    ) -> None:
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.stop = "interrupted"
        self._generator = generator
        self._prompt_ids = prompt_ids
        self._limits = limits
        self._reuse = reuse
        seed = system_seed() if sampling.seed is None else sampling.seed
        self._sampling = replace(sampling, seed=seed)
        self._seed = seed
        self._started = self._first = self._last = time.perf_counter()

    def __iter__(self) -> Iterator[str]:
        """Pieces of text as soon as their bytes are whole characters and part of no stop string."""
        pieces = whole_characters(map(self._generator.token_bytes, self._tokens()))
        return self._until_stop(pieces) if self._limits.stop else pieces

    def _until_stop(self, pieces: Iterator[str]) -> Iterator[str]:
        stops = StopStrings(self._limits.stop)
        yield from stops(pieces)
        if stops.hit is not None:
            self.stop = "stop string"

    def _tokens(self) -> Iterator[int]:
        session, end = self._generator.session, self._generator.tokenizer.end_of_text
        sampler = Sampler(self._sampling, self._prompt_ids, end)
        self._started = time.perf_counter()
        if not self._reuse:
            session.reset()
        logits = session.read(self._prompt_ids)
        for count in itertools.count(1):
            try:
                token = sampler(logits)
            except FloatingPointError:
                raise no_numbers(self._generator) from None
            self._last = time.perf_counter()
            if count == 1:
                self._first = self._last
            if token == end:
                self.stop = "end of text"
                return
            self.ids.append(token)
            if self._limits.logprobs:
                self.logprobs.append(log_probability(logits, token))
            yield token
            if count == self._limits.max_tokens:
                self.stop = "max tokens"
                return
            if session.length < session.config.block_size:
                logits = session.step(token)
            elif self._limits.on_full == "slide":
                logits = session.read(slide(self._prompt_ids, self.ids, session.config.block_size))
            else:
                self.stop = "context full"
                return

    @property
    def summary(self) -> GenerationStats:
        """Figures so far."""
        return GenerationStats(
            prompt_tokens=len(self._prompt_ids),
            tokens=len(self.ids),
            stop=self.stop,
            seed=self._seed,
            time_to_first_token=self._first - self._started,
            decode_seconds=self._last - self._first,
        )


class Generator:
    """Writes stories with one variant of a bundle; one story at a time, or several in a batch.

    `<|endoftext|>` in a prompt is text, or with `allow_special` the token.
    """

    def __init__(
        self, bundle: Bundle, variant: str | None = None, threads: int | None = None, allow_special: bool = False
    ) -> None:
        self.bundle = bundle
        self.allow_special = allow_special
        self.variant = bundle.choose(variant)
        self.tokenizer = bundle.tokenizer()
        self.token_bytes = self.tokenizer.encoding.decode_single_token_bytes
        self._threads = threads
        self.session = self._open(1)
        self._batch_session: Session | None = None

    def _open(self, rows: int) -> Session:
        config = self.bundle.config
        threads = default_threads(config, rows) if self._threads is None else self._threads
        return Session.open(self.bundle.model_path(self.variant), config, threads)

    def session_for(self, rows: int) -> Session:
        """The session to prefill a batch with: another one if that many rows are worth more threads."""
        if self._threads is not None or default_threads(self.bundle.config, rows) == self.session.threads:
            return self.session
        self._batch_session = self._batch_session or self._open(rows)
        return self._batch_session

    def stream(
        self,
        prompt: str = "",
        limits: GenerationConfig | None = None,
        sampling: SamplingParams | None = None,
        reuse: bool | None = None,
    ) -> Stream:
        """Begin a story; an empty prompt starts from nothing.

        With `reuse` the cache keeps what the prompt shares with the story before. In float that is the default; int8
        and int4 round what is read in parts a little otherwise, so that the same seed might tell another story. Raises
        SlmxError for a prompt that is not text or leaves no room in the context.
        """
        limits = limits or GenerationConfig()
        reuse = VARIANTS[self.variant].is_float if reuse is None else reuse
        return Stream(self, self.encode(prompt, limits.on_full), limits, sampling or SamplingParams(), reuse)

    def encode(self, prompt: str, on_full: str = "stop") -> list[int]:
        """Ids of a prompt behind the token that begins every story; SlmxError as in `stream`."""
        try:
            prompt.encode("utf-8")
        except UnicodeEncodeError:
            raise SlmxError(
                "the prompt holds bytes that are not UTF-8 text; retype it, or convert it to UTF-8"
            ) from None
        ids = [self.tokenizer.end_of_text, *self.tokenizer.encode(prompt, self.allow_special)]
        block_size = self.session.config.block_size
        if len(ids) > block_size and on_full == "slide":
            return slide(ids, [], block_size)
        if len(ids) > block_size:
            raise SlmxError(
                f"the prompt is {len(ids)} tokens long with its start token, the context holds {block_size}; shorten it"
            )
        return ids

    def batch(
        self, prompts: Sequence[str], limits: GenerationConfig | None = None, sampling: SamplingParams | None = None
    ) -> list[Completion]:
        """A story for each prompt, told together; arguments and errors as in `write_batch`."""
        from runtimes.engine.batch import write_batch

        return write_batch(self, prompts, limits, sampling)

    def generate(
        self,
        prompt: str = "",
        max_tokens: int | None = None,
        temperature: float = SamplingParams.temperature,
        top_k: int = SamplingParams.top_k,
        top_p: float = SamplingParams.top_p,
        repetition_penalty: float = LogitsRules.repetition_penalty,
        seed: int | None = None,
    ) -> Completion:
        """Write a whole story; arguments as in `SamplingParams`, `LogitsRules` and `GenerationConfig`."""
        sampling = SamplingParams(temperature, top_k, top_p, seed=seed, rules=LogitsRules(repetition_penalty))
        stream = self.stream(prompt, GenerationConfig(max_tokens), sampling)
        text = prompt + "".join(stream)
        return Completion(text, stream.ids, stream.summary)
