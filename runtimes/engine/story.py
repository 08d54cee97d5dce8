"""One story in progress: it turns logits into text until the story ends. It does not use a session."""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from runtimes.engine.arrays import FloatArray
from runtimes.engine.logprobs import log_total, most_likely
from runtimes.engine.penalties import NoTokenLeftError
from runtimes.engine.sampler import Sampler, system_seed
from runtimes.engine.stops import StopStrings
from runtimes.types import Completion, FinishReason, GenerationConfig, GenerationStats, SamplingParams

if TYPE_CHECKING:
    from runtimes.engine.banned_words import BannedWordsRule


def slide(prompt_ids: list[int], ids: list[int], block_size: int) -> list[int]:
    """Returns the ids that remain of a full context: its last half, after up to a quarter from the prompt's start."""
    return [*prompt_ids[: block_size // 4], *[*prompt_ids, *ids][-max(1, block_size // 2) :]]


class Story:
    """The state of one story: sampling, end, length, stop strings, UTF-8 and log-probabilities.

    The caller runs the model. It calls `start`, reads `prompt_ids`, and passes the last logits to `accept`. While
    `finish_reason` is None, it then runs `ids[-1]`, or reads `window` again if it is not None, and so on.
    `reused_prompt_tokens` is set by the caller. `error` is the reason if an error ended the story. Not thread-safe.

    Args:
        prompt: The text that was given.
        prompt_ids: Its ids, including the start token; at most `block_size`.
        config: Where the story ends.
        sampling: How ids are chosen.
        end: Id of the end of the text.
        token_bytes: Returns the bytes of an id.
        block_size: Positions in the model's context.
        drop_space: Whether a space at the start of the story is left out, because the tokenizer puts it there.
        banned: The rule of the banned words of `sampling`; None if there are none.
    """

    def __init__(
        self,
        prompt: str,
        prompt_ids: list[int],
        config: GenerationConfig,
        sampling: SamplingParams,
        end: int,
        token_bytes: Callable[[int], bytes],
        block_size: int,
        drop_space: bool = False,
        banned: BannedWordsRule | None = None,
    ) -> None:
        self.prompt = prompt
        self.prompt_ids = prompt_ids
        self.seed = system_seed() if sampling.seed is None else sampling.seed
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.top_logprobs: list[dict[int, float]] = []
        self.reused_prompt_tokens = 0
        self.error: Exception | None = None
        self.window: list[int] | None = None
        self.finish_reason: FinishReason | None = None
        self._stop = "interrupted"
        self._config = config
        self._ends = frozenset(config.stop_token_ids) | (frozenset() if config.ignore_eos else {end})
        self._sampler = Sampler(replace(sampling, seed=self.seed), prompt_ids, list(self._ends), banned)
        self._end = end
        self._records = config.logprobs or config.top_logprobs > 0
        self._token_bytes = token_bytes
        self._block_size = block_size
        self._drop_space = drop_space
        self._length = len(prompt_ids)  # positions that the model has read when `accept` is called
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stops = StopStrings(config.stop) if config.stop else None
        self._kept: list[int] | None = None  # what remained when the context was full the last time
        self._pieces: list[str] = []
        self._started = self._first = self._last = time.perf_counter()

    def start(self) -> None:
        """Starts the clock."""
        self._started = self._first = self._last = time.perf_counter()

    def accept(self, logits: FloatArray) -> str:
        """Chooses the next id and decides whether the story continues.

        Args:
            logits: float32 [vocab] after the last position. They are not changed or kept.

        Returns:
            The text that is certain now; empty while a character or a possible stop string is incomplete.

        Raises:
            FloatingPointError: The logits are NaN or infinite.
        """
        try:
            token = self._sampler(logits)
        except NoTokenLeftError:
            return self._finish("exhausted", "rules that forbid every token")
        self._last = time.perf_counter()
        if not self.ids:
            self._first = self._last
        if token in self._ends:
            ends_text = token == self._end and not self._config.ignore_eos
            return self._finish("stop", "end of text" if ends_text else "stop token")
        self.ids.append(token)
        if self._records:
            self._record(logits, token)
        piece = self._decoder.decode(self._text_of(token))
        if self._stops is not None:
            piece = self._stops.push(piece)
            if self._stops.hit is not None:
                return self._finish("stop", "stop string", piece)
        if len(self.ids) == self._config.max_tokens:
            return self._finish("length", "max tokens", piece)
        if self._length < self._block_size:
            self._length += 1
            self.window = None
        elif self._config.on_full == "slide":
            self.window = self._kept = slide(self.prompt_ids, self.ids, self._block_size)
            self._length = len(self.window)
        else:
            return self._finish("length", "context full", piece)
        if piece:
            self._pieces.append(piece)
        return piece

    def _record(self, logits: FloatArray, token: int) -> None:
        """Records the log-probabilities that were asked for."""
        total = log_total(logits)
        if self._config.logprobs:
            self.logprobs.append(float(logits[token]) - total)
        if self._config.top_logprobs:
            self.top_logprobs.append(most_likely(logits, self._config.top_logprobs, total))

    def _text_of(self, token: int) -> bytes:
        text = self._token_bytes(token)
        if self._drop_space and text:
            self._drop_space = False
            return text.removeprefix(b" ")
        return text

    def preempt(self) -> None:
        """Makes `window` all that the model has read and the last id, so that the story can leave its row."""
        kept = self.prompt_ids if self._kept is None else self._kept
        self.window = [*kept, *self.ids[len(self.ids) - (self._length - len(kept)) :]]

    def interrupt(self) -> str:
        """Ends the story now if it has not ended, and returns the text that was held back."""
        return self._finish("interrupted", "interrupted") if self.finish_reason is None else ""

    def fail(self, error: Exception) -> str:
        """Ends the story now because of an error, which is kept, and returns the text that was held back."""
        self.error = error
        return self.interrupt()

    def _finish(self, reason: FinishReason, stop: str, piece: str = "") -> str:
        """Records why the story ends, and returns the last piece of its text."""
        self.finish_reason, self._stop = reason, stop
        if self._stops is None:
            piece += self._decoder.decode(b"", final=True)
        elif self._stops.hit is None:
            piece += self._stops.push(self._decoder.decode(b"", final=True)) + self._stops.rest()
        self._pieces.append(piece)
        return piece

    def completion(self) -> Completion:
        """Returns the current story."""
        stats = GenerationStats(
            prompt_tokens=len(self.prompt_ids),
            tokens=len(self.ids),
            finish_reason=self.finish_reason or "interrupted",
            stop=self._stop,
            stop_string=None if self._stops is None else self._stops.hit,
            seed=self.seed,
            time_to_first_token=self._first - self._started,
            decode_seconds=self._last - self._first,
            reused_prompt_tokens=self.reused_prompt_tokens,
        )
        return Completion(
            self.prompt, "".join(self._pieces), list(self.ids), stats, list(self.logprobs), list(self.top_logprobs)
        )
