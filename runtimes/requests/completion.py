"""Reads a request of `/v1/completions`. A line of a file of prompts has the same fields."""

from __future__ import annotations

from dataclasses import dataclass

from runtimes.requests.errors import RequestError
from runtimes.requests.fields import Bounds, completion_table
from runtimes.requests.story_request import StoryRequest, shared_parts


@dataclass(frozen=True)
class CompletionRequest(StoryRequest):
    """Stories that continue prompts.

    Attributes:
        prompts: Texts or ids.
        echo: Whether a text begins with its prompt.
        score_only: Whether nothing is written: `max_tokens` is 0. Then `config.max_tokens` is None.
    """

    prompts: tuple[str | tuple[int, ...], ...]
    echo: bool
    score_only: bool


def read_completion(fields: object, bounds: Bounds) -> CompletionRequest:
    """Reads and checks a request.

    Args:
        fields: A JSON object. Any other value is refused.
        bounds: What a request may ask for.

    Raises:
        RequestError: A field is unknown, missing or wrong, or two exclude each other.
    """
    values = completion_table(bounds).read("", fields)
    most_tokens = values.get("max_tokens", bounds.max_tokens)
    score_only, echo = most_tokens == 0, bool(values.get("echo"))
    if score_only and not echo:
        raise RequestError(
            "max_tokens 0 writes nothing: set echo to true to score the prompt, or ask for 1 or more", "max_tokens"
        )
    if score_only and values.get("n", 1) != 1:
        raise RequestError("n must be 1 if max_tokens is 0: a prompt is scored once", "n")
    if echo and "logprobs" in values and values.get("on_full") == "slide":
        raise RequestError('echo with logprobs scores a whole prompt, and "slide" may cut it: leave it out', "on_full")
    parts = shared_parts(values, None if score_only else most_tokens, values.get("logprobs"))
    return CompletionRequest(**parts, prompts=values["prompt"], echo=echo, score_only=score_only)
