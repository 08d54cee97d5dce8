"""How the messages of a chat become the beginning of a text.

A template is data: texts and special tokens around each message. No code and no expression is ever run from a file.
Only the template names special tokens. The text of a message never becomes one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slm.console.plain_text import is_plain_text
from slm.storage.json_reader import Fields

if TYPE_CHECKING:
    from slm.tokenizers.settings import TokenizerSettings
    from slm.tokenizers.tokenizer import Tokenizer

TEMPLATE_VERSION = 1
KEY = "chat"
ROLES = ("system", "user", "assistant")
MOST_PARTS = 16
LONGEST_TEXT = 1000
LAYOUT = {ord("\n"): None, ord("\t"): None}
# Before these signs a new message needs no space: they close what is before them.
CLOSING = frozenset(",.;:!?)]}'\N{RIGHT SINGLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}\N{HORIZONTAL ELLIPSIS}")


@dataclass(frozen=True)
class Part:
    """A part of a template: a text, or the name of a special token of the tokenizer."""

    text: str
    special: bool = False


@dataclass(frozen=True)
class Turn:
    """The parts before and after each message of one role."""

    before: tuple[Part, ...] = ()
    after: tuple[Part, ...] = ()


@dataclass(frozen=True)
class ChatTemplate:
    """How the messages of a chat become the beginning of a text.

    The default is for models of stories, which have no turns: the texts of the messages follow each other, and the
    model continues them.

    Attributes:
        system: The parts around a message with instructions.
        user: The parts around a message of the user.
        assistant: The parts around an answer of the model.
        reply: The parts after the last message; the model continues them.
        join: The text between two messages, unless white space is already there or the second message begins with a
            closing sign, such as a comma.
    """

    system: Turn = Turn()
    user: Turn = Turn()
    assistant: Turn = Turn()
    reply: tuple[Part, ...] = ()
    join: str = " "

    def turn(self, role: str) -> Turn:
        """Returns the parts around a message of a role."""
        turn: Turn = getattr(self, role)
        return turn

    def encode(self, messages: Sequence[tuple[str, str]], tokenizer: Tokenizer) -> str | list[int]:
        """Returns the beginning of a text.

        Args:
            messages: The role and the text of each message, the oldest first.
            tokenizer: The tokenizer of the bundle.

        Returns:
            A text if the template has no special tokens, or else the ids.
        """
        pieces = [""]  # a text, a special token, a text, ...

        def add(parts: Sequence[Part]) -> None:
            for part in parts:
                if part.special:
                    pieces.extend((part.text, ""))
                else:
                    pieces[-1] += part.text

        for number, (role, text) in enumerate(messages):
            turn = self.turn(role)
            add(turn.before)
            if number and needs_space(pieces[-1], text):
                pieces[-1] += self.join
            pieces[-1] += text
            add(turn.after)
        add(self.reply)
        return pieces[0] if len(pieces) == 1 else tokenizer.encode_parts(pieces)

    def listed(self) -> dict[str, dict[str, Any]]:
        """Returns what a manifest says about the template: nothing for the default."""
        if self == STORY_TEMPLATE:
            return {}
        turns = {
            role: {"before": _plain(self.turn(role).before), "after": _plain(self.turn(role).after)} for role in ROLES
        }
        return {KEY: {"version": TEMPLATE_VERSION, **turns, "reply": _plain(self.reply), "join": self.join}}

    @classmethod
    def read(cls, listing: Fields, tokenizer: TokenizerSettings) -> ChatTemplate:
        """Reads the template from a manifest.

        Raises:
            ValueError: A value is missing, of the wrong type or too large, the version is not known, or the tokenizer
                does not have a special token.
        """
        fields = listing.optional(KEY, listing.object)
        if fields is None:
            return STORY_TEMPLATE
        if (version := fields.integer("version")) != TEMPLATE_VERSION:
            raise ValueError(f"{KEY}: version {version}, this slmx reads {TEMPLATE_VERSION}; upgrade slmx")
        if unknown := set(fields) - {"version", "reply", "join", *ROLES}:
            raise ValueError(f"{KEY}: the field {min(unknown)[:40]!a} is not known")

        def turn(role: str) -> Turn:
            inner = fields.object(role)
            return Turn(_parts(inner, "before", tokenizer), _parts(inner, "after", tokenizer))

        join = _text(fields, "join", KEY)
        system, user, assistant = map(turn, ROLES)
        return cls(system, user, assistant, _parts(fields, "reply", tokenizer), join)


def needs_space(before: str, after: str) -> bool:
    """Returns whether two texts that follow each other need white space between them."""
    return bool(before and after) and not (before[-1].isspace() or after[0].isspace() or after[0] in CLOSING)


def _plain(parts: Sequence[Part]) -> list[dict[str, str]]:
    return [{"special" if part.special else "text": part.text} for part in parts]


def _parts(fields: Fields, key: str, tokenizer: TokenizerSettings) -> tuple[Part, ...]:
    where = f"{KEY}: {key}"
    values = fields.value(key)
    if not isinstance(values, list) or len(values) > MOST_PARTS:
        raise ValueError(f"{where} is not a list of at most {MOST_PARTS} parts")
    parts = []
    for value in values:
        item = Fields(value, where)
        if len(list(item)) != 1:
            raise ValueError(f"{where}: a part has one field, text or special")
        special = "special" in item
        part = Part(_text(item, "special" if special else "text", where), special)
        if special and part.text not in tokenizer.specials:
            raise ValueError(f"{where}: the tokenizer has no special token {part.text[:40]!a}")
        parts.append(part)
    return tuple(parts)


def _text(fields: Fields, key: str, where: str) -> str:
    """Returns a text that may hold line breaks and tabs."""
    value = fields.value(key)
    if not isinstance(value, str) or len(value) > LONGEST_TEXT or not is_plain_text(value.translate(LAYOUT)):
        raise ValueError(f"{where}: {key} is not a text of printable characters, {LONGEST_TEXT} at most")
    return value


def template_for(tokenizer: TokenizerSettings) -> ChatTemplate:
    """Returns the template for a model with this tokenizer.

    A tokenizer whose texts begin with `<|im_start|>` and end with `<|im_end|>` is that of a chat model in the ChatML
    form, such as SmolLM2-Instruct. All others are read as models of stories.
    """
    return CHATML if (tokenizer.begin, tokenizer.end) == CHATML_TOKENS else STORY_TEMPLATE


def _chatml(role: str) -> Turn:
    return Turn((Part(CHATML_TOKENS[0], True), Part(f"{role}\n")), (Part(CHATML_TOKENS[1], True), Part("\n")))


STORY_TEMPLATE = ChatTemplate()
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
CHATML = ChatTemplate(
    _chatml("system"), _chatml("user"), _chatml("assistant"), reply=_chatml("assistant").before, join=""
)
