"""The fields of `/v1/completions` and `/v1/chat/completions`, with their ranges and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from runtimes.requests.errors import RequestError
from runtimes.requests.kinds import Anything, Bias, Choice, Flag, Ids, Number, Only, Schema, Text, Texts, Whole, wrong
from runtimes.requests.messages import Messages
from runtimes.requests.table import Field, Table
from runtimes.types import LARGEST_ID, ON_FULL, GenerationConfig, LogitsRules, SamplingParams
from runtimes.words import MAX_WORD_LENGTH
from slm.console.counted import counted

LONGEST_MODEL_NAME = 200
LARGEST_SEED = 2**63 - 1
LONGEST_STOP = 500
MOST_STOP_IDS = 64
MOST_BIASES = 1000
MOST_BANNED = 100
MOST_NGRAM = 1000
MOST_MIN_TOKENS = 1_000_000
# Fields of OpenAI's interface that are accepted and change nothing here.
IGNORED = {
    "metadata": "notes of the client",
    "prompt_cache_key": "OpenAI's cache of prompts; slmx finds common beginnings by itself",
    "prompt_cache_options": "OpenAI's cache of prompts",
    "prompt_cache_retention": "OpenAI's cache of prompts",
    "safety_identifier": "an id of the client's user",
    "service_tier": "OpenAI's classes of service",
    "store": "whether OpenAI keeps the answer; slmx keeps none",
}
IGNORED_IN_CHAT = {
    "parallel_tool_calls": "how tools are called; there are none here",
    "prediction": "a hint that makes OpenAI's answers faster",
    "reasoning_effort": "how long a model thinks; these models do not",
    "verbosity": "how long OpenAI's answers are",
}


@dataclass(frozen=True)
class Bounds:
    """What one request may ask for.

    Attributes:
        prompt_tokens: The most tokens of a prompt, with its start token; None is the context of the model.
        prompts: The most prompts.
        n: The most stories for each prompt.
        logprobs: How many of the most likely tokens can be shown for each token.
        stop: The most stop strings.
        max_tokens: The most tokens of a story, and the default; None is until the story or the context ends.
    """

    prompt_tokens: int | None = None
    prompts: int = 64
    n: int = 16
    logprobs: int = 20
    stop: int = 16
    max_tokens: int | None = None


@dataclass(frozen=True)
class Prompts:
    """One prompt or several: texts, or lists of ids."""

    most: int

    def read(self, name: str, value: object) -> tuple[str | tuple[int, ...], ...]:
        """Returns the prompts."""
        if isinstance(value, str):
            return (Text().read(name, value),)
        if value == []:
            raise RequestError(f"{name} is an empty list: it must hold at least one prompt", name)
        if not isinstance(value, list):
            raise wrong(name, "a text, a list of texts, a list of ids, or a list of such lists", value)
        if isinstance(value[0], int | float):
            return (Ids(None, 1).read(name, value),)
        if len(value) > self.most:
            raise wrong(name, f"at most {counted(self.most, 'prompt')}", value)
        one: Ids | Text = Ids(None, 1) if isinstance(value[0], list) else Text()
        return tuple(one.read(f"{name}[{number}]", item) for number, item in enumerate(value))

    def schema(self) -> Schema:
        """Returns the four forms."""
        text, ids = Text().schema(), Ids(None, 1).schema()
        lists = [{"type": "array", "items": items, "minItems": 1, "maxItems": self.most} for items in (text, ids)]
        return {"anyOf": [text, ids, *lists]}


@dataclass(frozen=True)
class Object:
    """An object with a table of its own."""

    table: Table

    def read(self, name: str, value: object) -> Mapping[str, object]:
        """Returns the values of its fields."""
        return self.table.read(name, value)

    def schema(self) -> Schema:
        """Returns the schema of the table."""
        return self.table.schema()


STREAM_OPTIONS = Table(
    (
        Field("include_usage", Flag(), "Whether an event with the usage comes before the end.", False),
        Field("include_obfuscation", Anything(), "Ignored: padding against observers of the network."),
    )
)


def _shared(bounds: Bounds) -> tuple[Field, ...]:
    """Returns the fields of both endpoints."""
    penalty = Number(-100, 100, "0 is off")
    return (
        Field("model", Text(LONGEST_MODEL_NAME), "The name of a model of GET /v1/models; default: the first."),
        Field("n", Whole(1, bounds.n), "How many stories to write for each prompt.", 1),
        Field("stream", Flag(), "Whether the answer comes in events while it is written.", False),
        Field("stream_options", Object(STREAM_OPTIONS), "Options of a stream; only with stream."),
        Field(
            "temperature",
            Number(0, 100, "0 takes the most likely token"),
            "Divides the logits; 0 takes the most likely token.",
            SamplingParams.temperature,
        ),
        Field(
            "top_k",
            Whole(-1, LARGEST_ID, "0 and -1 are off"),
            "Keeps the k most likely tokens; 0 and -1 are off.",
            SamplingParams.top_k,
        ),
        Field(
            "top_p",
            Number(0, 1, "1 is off", above=True),
            "Keeps the most likely tokens up to this share of the probability; 1 is off.",
            SamplingParams.top_p,
        ),
        Field(
            "min_p",
            Number(0, 1, "0 is off"),
            "Keeps tokens with at least this share of the probability of the most likely token; 0 is off.",
            SamplingParams.min_p,
        ),
        Field(
            "seed",
            Whole(0, LARGEST_SEED),
            "Story j of prompt i draws with seed + i * n + j; default: random. The answer states it.",
        ),
        Field("stop", Texts(bounds.stop, Text(LONGEST_STOP, 1)), "The story ends before the first of these texts."),
        Field("stop_token_ids", Ids(MOST_STOP_IDS), "The story ends at the first of these tokens."),
        Field(
            "min_tokens",
            Whole(0, MOST_MIN_TOKENS),
            "Forbids the end of the text and stop tokens before this many tokens.",
            LogitsRules.min_tokens,
        ),
        Field("ignore_eos", Flag(), "Whether the story goes on after the end of the text.", False),
        Field(
            "on_full",
            Choice(ON_FULL),
            "When the context is full: stop ends the story, slide forgets its middle.",
            GenerationConfig.on_full,
        ),
        Field(
            "presence_penalty",
            penalty,
            "Is subtracted from the logits of written tokens.",
            LogitsRules.presence_penalty,
        ),
        Field(
            "frequency_penalty",
            penalty,
            "Is subtracted from the logit of a token for each time that it was written.",
            LogitsRules.frequency_penalty,
        ),
        Field(
            "repetition_penalty",
            Number(0.01, 100, "1 is off"),
            "Above 1 makes tokens of the prompt and the text less likely; 1 is off.",
            LogitsRules.repetition_penalty,
        ),
        Field(
            "no_repeat_ngram",
            Whole(0, MOST_NGRAM, "0 is off"),
            "Never writes the same n tokens twice; 0 is off.",
            LogitsRules.no_repeat_ngram,
        ),
        Field("logit_bias", Bias(MOST_BIASES, 100), "Is added to the logits of these tokens."),
        Field(
            "ban_words",
            Texts(MOST_BANNED, Text(MAX_WORD_LENGTH, 1)),
            "Words that are never written, in any case: letters, digits, apostrophes.",
        ),
        Field("return_token_ids", Flag(), "Whether the answer has the ids of the prompt and of the text.", False),
        Field("user", Text(LONGEST_MODEL_NAME), "A name of the client's user. It changes nothing."),
    )


def _ignored(names: Mapping[str, str]) -> tuple[Field, ...]:
    return tuple(Field(name, Anything(), f"Ignored: {what}.") for name, what in names.items())


@lru_cache
def completion_table(bounds: Bounds) -> Table:
    """Returns the fields of `/v1/completions`."""
    return Table(
        (
            Field(
                "prompt",
                Prompts(bounds.prompts),
                "How the story begins: a text, a list of texts, a list of ids, or a list of such lists.",
                required=True,
            ),
            Field(
                "max_tokens",
                Whole(0, bounds.max_tokens or LARGEST_ID),
                "The most tokens to write; 0 only scores "
                "the prompt, with echo. Default: until the story or the context ends.",
                bounds.max_tokens,
            ),
            *_shared(bounds),
            Field(
                "logprobs",
                Whole(0, bounds.logprobs),
                "Shows the log-probability of each token and of this many of the most likely tokens.",
            ),
            Field("echo", Flag(), "Whether the text begins with the prompt. With logprobs it is scored too.", False),
            Field("best_of", Only((1,), "only 1 is possible; ask for n stories and choose"), "Only 1."),
            Field("suffix", Only((), "a story is written from its beginning only; leave suffix out"), "Not possible."),
            *_ignored(IGNORED),
        )
    )


@lru_cache
def chat_table(bounds: Bounds) -> Table:
    """Returns the fields of `/v1/chat/completions`."""
    tools = Only(([],), "these models call no tools; leave it out")
    functions = Only(("none", "auto"), "these models call no tools; leave it out")
    most = "The most tokens to write. Default: until the answer or the context ends."
    text_only = Only(({"type": "text"},), 'only {"type": "text"} is possible; these models write plain text')
    return Table(
        (
            Field("messages", Messages(), "The messages so far, the oldest first.", required=True),
            Field("max_completion_tokens", Whole(1, bounds.max_tokens or LARGEST_ID), most, bounds.max_tokens),
            Field("max_tokens", Whole(1, bounds.max_tokens or LARGEST_ID), "The older name of max_completion_tokens."),
            *_shared(bounds),
            Field("logprobs", Flag(), "Whether the log-probability of each token is shown.", False),
            Field(
                "top_logprobs",
                Whole(0, bounds.logprobs),
                "Shows as many of the most likely tokens; only with logprobs.",
                0,
            ),
            Field("response_format", text_only, 'Only {"type": "text"}.'),
            Field("modalities", Only((["text"],), 'only ["text"] is possible'), 'Only ["text"].'),
            Field("audio", Only((), "these models write text only; leave audio out"), "Not possible."),
            Field("tools", tools, "Only an empty list."),
            Field("tool_choice", functions, "Changes nothing, because there are no tools."),
            Field("functions", tools, "Only an empty list."),
            Field("function_call", functions, "Changes nothing, because there are no functions."),
            Field("moderation", Only((), "slmx moderates no text; leave it out"), "Not possible."),
            Field("web_search_options", Only((), "these models search nothing; leave it out"), "Not possible."),
            *_ignored(IGNORED | IGNORED_IN_CHAT),
        )
    )
