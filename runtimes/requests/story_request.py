"""What both kinds of requests have in common: how stories are written and what the answer holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from runtimes.requests.errors import RequestError
from runtimes.types import GenerationConfig, SamplingParams, Settings, read_settings
from slm.console.errors import UsageError


@dataclass(frozen=True)
class StoryRequest:
    """What both kinds of requests have in common.

    Attributes:
        model: The wanted model; None is the first.
        n: The number of stories for each prompt.
        config: Where a story ends and what is recorded.
        sampling: How ids are chosen. Story j of prompt i draws with seed + i * n + j.
        stream: Whether the answer comes in events.
        include_usage: Whether a last event of a stream holds the usage.
        return_token_ids: Whether the answer has the ids of prompts and stories.
    """

    model: str | None
    n: int
    config: GenerationConfig
    sampling: SamplingParams
    stream: bool
    include_usage: bool
    return_token_ids: bool


def shared_parts(values: Mapping[str, Any], most_tokens: int | None, logprobs: int | None) -> dict[str, Any]:
    """Returns the arguments of `StoryRequest`.

    Args:
        values: The checked fields.
        most_tokens: The most tokens of a story; None writes until it ends.
        logprobs: How many of the most likely tokens are shown; None if no log-probabilities are.

    Raises:
        RequestError: Two fields exclude each other, or a banned word is no word.
    """
    options = values.get("stream_options")
    if options is not None and not values.get("stream"):
        raise RequestError("stream_options is for streams only: set stream to true, or leave it out", "stream_options")
    settings = {name: values[name] for name in Settings.__annotations__ if name in values}
    settings |= {"max_tokens": most_tokens, "logprobs": logprobs is not None, "top_logprobs": logprobs or 0}
    if "top_k" in settings:
        settings["top_k"] = max(0, settings["top_k"])
    if most_tokens is not None and settings.get("min_tokens", 0) > most_tokens:
        raise RequestError(
            f"min_tokens must be at most max_tokens, {most_tokens}, not {settings['min_tokens']}", "min_tokens"
        )
    if settings.get("ignore_eos") and settings.get("on_full") == "slide" and most_tokens is None:
        raise RequestError('with ignore_eos and on_full "slide" a story never ends: set max_tokens', "max_tokens")
    try:
        config, sampling = read_settings(**cast("Settings", settings))
    except UsageError as error:  # the table has checked the other settings
        raise RequestError(f"ban_words: {error}", "ban_words") from None
    return {
        "model": values.get("model"),
        "n": values.get("n", 1),
        "config": config,
        "sampling": sampling,
        "stream": values.get("stream", False),
        "include_usage": bool(options and options.get("include_usage")),
        "return_token_ids": values.get("return_token_ids", False),
    }
