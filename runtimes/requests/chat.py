"""Reads a request of `/v1/chat/completions`."""

from __future__ import annotations

from dataclasses import dataclass

from runtimes.requests.errors import RequestError
from runtimes.requests.fields import Bounds, chat_table
from runtimes.requests.messages import Message
from runtimes.requests.story_request import StoryRequest, shared_parts


@dataclass(frozen=True)
class ChatRequest(StoryRequest):
    """Stories that continue a chat.

    Attributes:
        messages: The messages so far, the oldest first; at least one.
    """

    messages: tuple[Message, ...]


def read_chat(fields: object, bounds: Bounds) -> ChatRequest:
    """Reads and checks a request.

    Args:
        fields: A JSON object. Any other value is refused.
        bounds: What a request may ask for.

    Raises:
        RequestError: A field is unknown, missing or wrong, or two exclude each other.
    """
    values = chat_table(bounds).read("", fields)
    older = values.get("max_tokens")
    most_tokens = values.get("max_completion_tokens", older)
    if older is not None and older != most_tokens:
        raise RequestError(
            f"max_tokens is the older name of max_completion_tokens, and they differ ({older} and {most_tokens}): "
            "leave one out",
            "max_tokens",
        )
    shows, top = bool(values.get("logprobs")), values.get("top_logprobs", 0)
    if top and not shows:
        raise RequestError("top_logprobs is for log-probabilities only: set logprobs to true", "top_logprobs")
    parts = shared_parts(values, bounds.max_tokens if most_tokens is None else most_tokens, top if shows else None)
    return ChatRequest(**parts, messages=values["messages"])
