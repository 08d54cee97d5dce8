"""The messages of a chat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from runtimes.requests.errors import RequestError
from runtimes.requests.kinds import Anything, Choice, Only, Schema, Text, shown, wrong
from runtimes.requests.table import Field, Table

Role = Literal["system", "user", "assistant"]
ROLES = ("system", "developer", "user", "assistant")
MOST_MESSAGES = 1000
MOST_PARTS = 100


@dataclass(frozen=True)
class Message:
    """A message: who wrote it, and its text. The role developer is read as system."""

    role: Role
    text: str


@dataclass(frozen=True)
class Content:
    """A text, or a list of parts of a text."""

    def read(self, name: str, value: object) -> str:
        """Returns the text. Parts follow each other directly."""
        if isinstance(value, str):
            return Text().read(name, value)
        if not isinstance(value, list) or len(value) > MOST_PARTS:
            raise wrong(name, f"a text or a list of at most {MOST_PARTS} parts", value)
        return "".join(_part(f"{name}[{number}]", part) for number, part in enumerate(value))

    def schema(self) -> Schema:
        """Returns both forms."""
        return {"anyOf": [Text().schema(), {"type": "array", "items": PART.schema(), "maxItems": MOST_PARTS}]}


PART = Table(
    (
        Field("type", Choice(("text",)), "The kind of the part.", required=True),
        Field("text", Text(), "The text of the part.", required=True),
    )
)


def _part(name: str, value: object) -> str:
    kind = value.get("type") if isinstance(value, Mapping) else None
    if isinstance(kind, str) and kind != "text":
        raise RequestError(
            f"{name}.type: {shown(kind)} is not possible; these models read text only",
            f"{name}.type",
            "unsupported_value",
        )
    return str(PART.read(name, value)["text"])


_UNUSED = "these models neither call tools nor write sound; leave it out"
MESSAGE = Table(
    (
        Field("role", Choice(ROLES), "Who wrote the message.", required=True),
        Field("content", Content(), "Its text, or a list of parts of it.", required=True),
        Field("name", Anything(), "Ignored: the name of the writer."),
        # Clients send an answer back as they got it.
        Field("refusal", Only((), "a refusal is no text; leave it out"), "Only null."),
        Field("annotations", Only(([],), _UNUSED), "Only an empty list."),
        Field("audio", Only((), _UNUSED), "Only null."),
        Field("tool_calls", Only(([],), _UNUSED), "Only an empty list."),
        Field("function_call", Only((), _UNUSED), "Only null."),
    )
)


@dataclass(frozen=True)
class Messages:
    """The messages of a chat: at least one."""

    def read(self, name: str, value: object) -> tuple[Message, ...]:
        """Returns the messages."""
        if not isinstance(value, list) or not 1 <= len(value) <= MOST_MESSAGES:
            raise wrong(name, f"a list of 1 to {MOST_MESSAGES:,} messages", value)
        return tuple(_message(f"{name}[{number}]", item) for number, item in enumerate(value))

    def schema(self) -> Schema:
        """Returns the limits."""
        return {"type": "array", "items": MESSAGE.schema(), "minItems": 1, "maxItems": MOST_MESSAGES}


def _message(name: str, value: object) -> Message:
    role = value.get("role") if isinstance(value, Mapping) else None
    if role in ("tool", "function"):
        raise RequestError(
            f"{name}.role: these models call no {role}s; leave out its messages", f"{name}.role", "unsupported_value"
        )
    found = MESSAGE.read(name, value)
    role = "system" if found["role"] == "developer" else found["role"]
    return Message(cast("Role", role), str(found["content"]))
