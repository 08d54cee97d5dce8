"""Settings of a story and its result. This module does not load numpy, so the command line can read its defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from slm.console.errors import SlmxError, UsageError

if TYPE_CHECKING:
    from typing_extensions import Unpack  # typing has it from Python 3.11

FinishReason = Literal["stop", "length", "exhausted", "interrupted"]

ON_FULL = ("stop", "slide")
# It is far below the largest float32 (3.4e38), so no sum of penalties and biases overflows.
LARGEST_PENALTY = 1e30
LARGEST_ID = 2**31 - 1
MAX_STORIES = 100_000  # of one command or call


def check_number(name: str, value: object, whole: bool = False) -> None:
    """Raises UsageError unless a value is a number, or a whole number if `whole`. Those of numpy are numbers too."""
    if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
        kind = "a whole number" if whole else "a number"
        raise UsageError(f"{name} must be {kind}, not {ascii(value)[:80]}")


def check_least(name: str, value: object, least: int) -> None:
    """Raises UsageError unless a value is a whole number from `least` on."""
    check_number(name, value, whole=True)
    if isinstance(value, Integral) and value < least:
        raise UsageError(f"{name} must be at least {least}, not {value}")


def make_plain(settings: object, *names: str) -> None:
    """Makes whole numbers of frozen settings ints, unless they are None. Those of numpy overflow, and are no seeds."""
    for name in names:
        value = getattr(settings, name)
        if value is not None:
            object.__setattr__(settings, name, int(value))


def as_texts(name: str, value: object) -> tuple[str, ...]:
    """Returns one text or several as a tuple; UsageError if a value is neither."""
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise UsageError(f"{name} must be a text or a list of texts, not {ascii(value)[:80]}")
    return tuple(texts)


def as_ids(name: str, value: object) -> tuple[int, ...]:
    """Returns the ids of tokens as a tuple; UsageError if a value is no list of whole numbers from 0 on."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise UsageError(f"{name} must be a list of ids, not {ascii(value)[:80]}")
    for token in value:
        check_number(f"{name}: an id", token, whole=True)
        if not 0 <= token <= LARGEST_ID:
            raise UsageError(f"{name}: an id must lie from 0 to {LARGEST_ID}, not {token}")
    return tuple(map(int, value))


def check_prompt(text: str) -> int:
    """Returns the number of UTF-8 bytes of a prompt.

    Raises:
        UsageError: It is no str.
        SlmxError: It has lone surrogates, which input bytes that are not UTF-8 become.
    """
    if not isinstance(text, str):
        raise UsageError(f"the prompt must be a text (str), not {type(text).__name__}")
    return _utf8_length("the prompt", text)


def _utf8_length(name: str, text: str) -> int:
    try:
        return len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise SlmxError(f"{name} holds bytes that are not UTF-8 text; retype it, or convert it to UTF-8") from None


@dataclass(frozen=True)
class LogitsRules:
    """Rules that change logits before temperature. They are off by default. docs/architecture.md has their order.

    Args:
        repetition_penalty: Divides positive logits of ids in the prompt and the text, multiplies negative ones
            (Keskar et al. 2019, section 4.1). 1 is off.
        presence_penalty: Is subtracted from the logits of ids in the text (OpenAI's definition). 0 is off.
        frequency_penalty: Is subtracted once for each time that an id is in the text (OpenAI's definition). 0 is off.
        no_repeat_ngram: Forbids the ids that would complete a sequence of this many ids a second time. 0 is off.
        min_tokens: Forbids the end of the text and stop tokens before this many tokens.
        logit_bias: Is added to the logits of these ids, before all other rules.
        ban_words: One word or several that are never written, in any case; applied after `no_repeat_ngram`.
            docs/runtime.md has the exact rule.

    Raises:
        UsageError: A value is outside its range.
    """

    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    no_repeat_ngram: int = 0
    min_tokens: int = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    ban_words: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_number("repetition penalty", self.repetition_penalty)
        check_number("no-repeat n-gram", self.no_repeat_ngram, whole=True)
        check_number("min tokens", self.min_tokens, whole=True)
        if not 0.0 < self.repetition_penalty <= LARGEST_PENALTY:
            raise UsageError(
                f"repetition penalty must be above 0, up to {LARGEST_PENALTY:g} (1 is off), "
                f"not {self.repetition_penalty}"
            )
        for name in ("presence_penalty", "frequency_penalty"):
            value = getattr(self, name)
            check_number(name.replace("_", " "), value)
            if not abs(value) <= LARGEST_PENALTY:
                raise UsageError(
                    f"{name.replace('_', ' ')} must lie from -{LARGEST_PENALTY:g} to {LARGEST_PENALTY:g} (0 is off), "
                    f"not {value}"
                )
        if self.no_repeat_ngram < 0:
            raise UsageError(f"no-repeat n-gram must be 0 (off) or more, not {self.no_repeat_ngram}")
        if self.min_tokens < 0:
            raise UsageError(f"min tokens must be 0 (off) or more, not {self.min_tokens}")
        make_plain(self, "no_repeat_ngram", "min_tokens")
        if not isinstance(self.logit_bias, Mapping):
            raise UsageError(f"logit bias must be a mapping of ids to numbers, not {ascii(self.logit_bias)[:80]}")
        for token, value in self.logit_bias.items():
            check_number("logit bias: the id of a token", token, whole=True)
            check_number("logit bias", value)
            if not 0 <= token <= LARGEST_ID or not abs(value) <= LARGEST_PENALTY:
                raise UsageError(
                    f"logit bias must be the id of a token and a number up to {LARGEST_PENALTY:g}, not {token}={value}"
                )
        object.__setattr__(self, "ban_words", as_texts("ban words", self.ban_words))
        if self.ban_words:
            from runtimes.words import check_banned

            check_banned(self.ban_words)

    @property
    def active(self) -> bool:
        """Whether any rule changes anything."""
        return self != LogitsRules()


NO_RULES = LogitsRules()


@dataclass(frozen=True)
class SamplingParams:
    """How the next id is chosen from its logits.

    Args:
        temperature: Divides the logits; 0 takes the most likely id.
        top_k: Keeps the k most likely ids; 0 is off.
        top_p: Keeps the most likely ids up to this share of the probability; 1 is off.
        min_p: Keeps ids with at least this share of the probability of the most likely id; 0 is off.
        seed: The same seed and the same logits give the same ids; None takes 32 random bits.
        rules: Rules that change the logits first.

    Raises:
        UsageError: A value is outside its range.
    """

    temperature: float = 0.9
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.0
    seed: int | None = None
    rules: LogitsRules = NO_RULES

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "min_p"):
            check_number(name.replace("_", "-"), getattr(self, name))
        check_number("top-k", self.top_k, whole=True)
        if self.seed is not None:
            check_number("seed", self.seed, whole=True)
        if not 0.0 <= self.temperature < float("inf"):
            raise UsageError(f"temperature must be a finite number, 0 (greedy) or more, not {self.temperature}")
        if self.top_k < 0:
            raise UsageError(f"top-k must be 0 (off) or more, not {self.top_k}")
        if not 0.0 < self.top_p <= 1.0:
            raise UsageError(f"top-p must lie above 0 and up to 1 (off), not {self.top_p}")
        if not 0.0 <= self.min_p <= 1.0:
            raise UsageError(f"min-p must lie between 0 (off) and 1, not {self.min_p}")
        if self.seed is not None and self.seed < 0:
            raise UsageError(f"seed must be 0 or more, not {self.seed}")
        make_plain(self, "top_k", "seed")


@dataclass(frozen=True)
class GenerationConfig:
    """Where a story ends and what is recorded.

    Args:
        max_tokens: The most tokens to write; None writes until the story or the context ends.
        stop: One text or several. The story ends before the first of them that is written.
        on_full: What happens when the context is full. "stop" ends the story. "slide" forgets the middle: the
            beginning of the prompt and the last half are read again, because learned positions cannot be shifted.
            With "slide" the prompt itself may be longer than the context.
        logprobs: Records the log-probability of each id.
        top_logprobs: Records the log-probabilities of this many most likely ids at each position. 0 is off.
        stop_token_ids: The story ends before the first of these ids that is chosen.
        ignore_eos: Whether the story goes on after the end of the text. Then this end is an id of the story without
            text.

    Raises:
        UsageError: A value is outside its range.
        SlmxError: A stop string has lone surrogates, which input bytes that are not UTF-8 become.
    """

    max_tokens: int | None = None
    stop: Sequence[str] = ()
    on_full: str = "stop"
    logprobs: bool = False
    top_logprobs: int = 0
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", as_texts("stop", self.stop))
        object.__setattr__(self, "stop_token_ids", as_ids("stop token ids", self.stop_token_ids))
        check_least("top logprobs", self.top_logprobs, 0)
        if self.max_tokens is not None:
            check_least("max tokens", self.max_tokens, 1)
        make_plain(self, "max_tokens", "top_logprobs")
        for name in ("logprobs", "ignore_eos"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(
                    f"{name.replace('_', ' ')} must be True or False, not {ascii(getattr(self, name))[:80]}"
                )
        if self.on_full not in ON_FULL:
            raise UsageError(f"on full must be one of {', '.join(ON_FULL)}, not {self.on_full!r}")
        for text in self.stop:
            if _utf8_length("a stop string", text) == 0:
                raise UsageError("a stop string must not be empty")


class Settings(TypedDict, total=False):
    """Every setting of a story by name, as `Generator.generate` takes them."""

    max_tokens: int | None
    stop: Sequence[str]
    on_full: str
    logprobs: bool
    top_logprobs: int
    stop_token_ids: Sequence[int]
    ignore_eos: bool
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    seed: int | None
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    no_repeat_ngram: int
    min_tokens: int
    logit_bias: Mapping[int, float]
    ban_words: Sequence[str]


def read_settings(**settings: Unpack[Settings]) -> tuple[GenerationConfig, SamplingParams]:
    """Divides settings between the classes that check them.

    Raises:
        UsageError: A value is outside its range.
        TypeError: A name is not a setting.
    """
    rest: dict[str, Any] = dict(settings)
    rules, config = (
        {item.name: rest.pop(item.name) for item in fields(kind) if item.name in rest}
        for kind in (LogitsRules, GenerationConfig)
    )
    return GenerationConfig(**config), SamplingParams(**rest, rules=LogitsRules(**rules))


@dataclass(frozen=True)
class GenerationStats:
    """Figures of one story.

    Attributes:
        prompt_tokens: Number of ids in the prompt, including the start token.
        tokens: Number of ids written after the prompt.
        finish_reason: "stop" (end of text, a stop string or a stop token) or "length" (max tokens or the context), as
            in OpenAI's interface; "exhausted" if the rules forbid every id; "interrupted" if the story has not ended.
        stop: The exact reason: "end of text", "stop string", "stop token", "max tokens", "context full",
            "rules that forbid every token" or "interrupted".
        stop_string: The stop string that was written, or None.
        seed: The seed that was used.
        time_to_first_token: Seconds from the start to the first id.
        decode_seconds: Seconds from the first id to the last.
        reused_prompt_tokens: Number of ids of the prompt that were copied from another story or prompt, not read.
    """

    prompt_tokens: int
    tokens: int
    finish_reason: FinishReason
    stop: str
    stop_string: str | None
    seed: int
    time_to_first_token: float
    decode_seconds: float
    reused_prompt_tokens: int = 0

    @property
    def tokens_per_second(self) -> float:
        """Rate of the steps after the first token; 0 if there were no such steps."""
        return (self.tokens - 1) / self.decode_seconds if self.tokens > 1 and self.decode_seconds > 0 else 0.0


@dataclass(frozen=True)
class Completion:
    """A story that was written.

    Attributes:
        prompt: The text that was given.
        completion_text: The text that was written after it.
        ids: The ids of the written text, without the end of the text.
        stats: The figures of the story.
        logprobs: Natural logarithms of the ids' probabilities before all rules, if they were asked for.
        top_logprobs: For each id the most likely ids at its position, the most likely first, with the natural
            logarithms of their probabilities before all rules, if they were asked for.
    """

    prompt: str
    completion_text: str
    ids: list[int]
    stats: GenerationStats
    logprobs: list[float]
    top_logprobs: list[dict[int, float]] = field(default_factory=list)

    @property
    def full_text(self) -> str:
        """The prompt and what was written after it."""
        return self.prompt + self.completion_text
