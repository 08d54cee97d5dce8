"""Text in, text out: a prompt is encoded, prefilled in one run and continued token by token."""

from __future__ import annotations

import codecs
import itertools
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from runtimes.bundle import Bundle
from runtimes.sampler import Sampler, Sampling
from runtimes.session import Session
from slm.errors import SlmxError


@dataclass(frozen=True)
class Summary:
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
class Story:
    """A finished text, prompt included, its new ids and its figures."""

    text: str
    ids: list[int]
    summary: Summary


def whole_characters(chunks: Iterable[bytes]) -> Iterator[str]:
    """Decode UTF-8 as it comes, holding back unfinished characters; what is no UTF-8 becomes U+FFFD."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for chunk in chunks:
        piece = decoder.decode(chunk)
        if piece:
            yield piece
    rest = decoder.decode(b"", final=True)
    if rest:
        yield rest


class Stream:
    """A story being written: iterate over its pieces of text, then read `ids` and `summary`."""

    def __init__(self, generator: Generator, prompt_ids: list[int], max_tokens: int | None, sampling: Sampling) -> None:
        self.ids: list[int] = []
        self.stop = "interrupted"
        self._generator = generator
        self._prompt_ids = prompt_ids
        self._max_tokens = max_tokens
        seed = secrets.randbits(32) if sampling.seed is None else sampling.seed
        self._sampling = replace(sampling, seed=seed)
        self._seed = seed
        self._started = self._first = self._last = time.perf_counter()

    def __iter__(self) -> Iterator[str]:
        """Pieces of text as soon as their bytes are whole characters."""
        token_bytes = self._generator.tokenizer.encoding.decode_single_token_bytes
        return whole_characters(token_bytes(token) for token in self._tokens())

    def _tokens(self) -> Iterator[int]:
        session, end = self._generator.session, self._generator.tokenizer.end_of_text
        sampler = Sampler(self._sampling, self._prompt_ids)
        self._started = time.perf_counter()
        session.rewind(0)
        logits = session.prefill(self._prompt_ids)[-1]
        for count in itertools.count(1):
            token = sampler(logits)
            self._last = time.perf_counter()
            if count == 1:
                self._first = self._last
            if token == end:
                self.stop = "end of text"
                return
            self.ids.append(token)
            yield token
            if count == self._max_tokens:
                self.stop = "max tokens"
                return
            if session.length == session.config.block_size:
                self.stop = "context full"
                return
            logits = session.step(token)

    @property
    def summary(self) -> Summary:
        """Figures so far."""
        return Summary(
            prompt_tokens=len(self._prompt_ids),
            tokens=len(self.ids),
            stop=self.stop,
            seed=self._seed,
            time_to_first_token=self._first - self._started,
            decode_seconds=self._last - self._first,
        )


class Generator:
    """Writes stories with one variant of a bundle; one story at a time."""

    def __init__(self, bundle: Bundle, variant: str | None = None, threads: int | None = None) -> None:
        self.bundle = bundle
        self.variant = bundle.choose(variant)
        self.tokenizer = bundle.tokenizer()
        self.session = Session(bundle.model_path(self.variant), bundle.config, threads)

    def stream(self, prompt: str = "", max_tokens: int | None = None, sampling: Sampling | None = None) -> Stream:
        """Begin a story; an empty prompt starts from nothing, `max_tokens` None goes on to the end.

        Raises SlmxError for a prompt that is not text, leaves no room in the context, or max_tokens below 1.
        """
        block_size = self.session.config.block_size
        if max_tokens is not None and max_tokens < 1:
            raise SlmxError(f"max tokens must be at least 1, not {max_tokens}")
        try:
            prompt.encode("utf-8")
        except UnicodeEncodeError:
            raise SlmxError(
                "the prompt holds bytes that are not UTF-8 text; retype it, or convert it to UTF-8"
            ) from None
        ids = [self.tokenizer.end_of_text, *self.tokenizer.encode(prompt)]
        if len(ids) > block_size:
            raise SlmxError(
                f"the prompt is {len(ids)} tokens long with its start token, the context holds {block_size}; shorten it"
            )
        return Stream(self, ids, max_tokens, sampling or Sampling())

    def generate(
        self,
        prompt: str = "",
        max_tokens: int | None = None,
        temperature: float = Sampling.temperature,
        top_k: int = Sampling.top_k,
        top_p: float = Sampling.top_p,
        repetition_penalty: float = Sampling.repetition_penalty,
        seed: int | None = None,
    ) -> Story:
        """Write a whole story; arguments as in `Sampling` and `stream`."""
        stream = self.stream(prompt, max_tokens, Sampling(temperature, top_k, top_p, repetition_penalty, seed))
        text = prompt + "".join(stream)
        return Story(text, stream.ids, stream.summary)
