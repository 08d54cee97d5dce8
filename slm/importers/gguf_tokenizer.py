"""Converts the tokenizer in the metadata of a GGUF file, the format of llama.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import TypeVar

from slm.console.counted import counted
from slm.console.errors import SlmxError
from slm.console.plain_text import is_plain_text
from slm.importers.imported_tokenizer import (
    BYTE_NAMES,
    ImportedTokenizer,
    Vocabulary,
    check_agreement,
    convert,
    merges_of_scores,
    reachable,
    shown_token,
    some,
)
from slm.storage.json_reader import Fields
from slm.tokenizers.settings import TokenizerSettings

PREFIX = "tokenizer.ggml."
# llama.cpp's names for ways to split text, and our schemes.
PRE_TOKENIZERS = {"gpt-2": "gpt2", "smollm": "digits", "llama-bpe": "cl100k", "qwen2": "qwen2"}
_T = TypeVar("_T", int, float, str)


class TokenType(IntEnum):
    """What a token of a GGUF file is."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def gguf_tokenizer(metadata: Mapping[str, object], where: str) -> ImportedTokenizer:
    """Makes a tokenizer from the metadata of a GGUF file.

    Args:
        metadata: The values by key. Of them those that begin with `tokenizer.ggml.` are read. Arrays are lists.
        where: The file, for messages.

    Raises:
        SlmxError: A value is missing or of the wrong type, or slmx cannot run this tokenizer in the same way.
    """
    try:
        source = _vocabulary(metadata, where)
    except ValueError as error:
        raise SlmxError(f"{where}: not a tokenizer that slmx can import ({error})") from None
    imported = convert(source, where)
    check_agreement(imported, where)
    return imported


def _vocabulary(metadata: Mapping[str, object], where: str) -> Vocabulary:
    fields = Fields({key.removeprefix(PREFIX): value for key, value in metadata.items() if key.startswith(PREFIX)})
    tokens, types = _list(fields, "tokens", str), _list(fields, "token_type", int)
    if len(types) != len(tokens):
        raise ValueError(f"{counted(len(tokens), 'token')}, {counted(len(types), 'token type')}")
    if len(set(tokens)) < len(tokens):
        raise ValueError("a token is there twice")
    numbers = {token: number for number, token in enumerate(tokens)}
    kinds = {kind: [token for token, own in zip(tokens, types, strict=True) if own == kind] for kind in TokenType}
    if added := kinds[TokenType.USER_DEFINED]:
        raise SlmxError(f"{where}: has the added tokens {some(added)}, which slmx cannot keep")
    specials = {token: numbers[token] for kind in (TokenType.UNKNOWN, TokenType.CONTROL) for token in kinds[kind]}
    ids = {token: numbers[token] for kind in (TokenType.NORMAL, TokenType.BYTE) for token in kinds[kind]}
    kind = fields.text("model")
    if kind == "gpt2":
        scheme, prefix = _scheme(fields, where), TokenizerSettings.prefix
        merges = [_pair(merge) for merge in _list(fields, "merges", str)]
    elif kind == "llama":
        scores = _list(fields, "scores", float)
        if len(scores) != len(tokens):
            raise ValueError(f"{counted(len(tokens), 'token')}, {counted(len(scores), 'score')}")
        merges = merges_of_scores({token: scores[number] for token, number in ids.items() if token not in BYTE_NAMES})
        scheme = "sentencepiece"
        prefix = "never" if fields.optional("add_space_prefix", fields.flag) is False else "always"
    else:
        raise SlmxError(f"{where}: its tokenizer is {kind[:40]!a}, and slmx knows gpt2 and llama only")
    ordinary = reachable(ids, merges, specials)
    end = _special(fields, "eos_token_id", tokens, ordinary)
    if end is None:
        raise ValueError("no eos_token_id")
    begin = _special(fields, "bos_token_id", tokens, ordinary)
    settings = TokenizerSettings(scheme, end, None if begin == end else begin, prefix)
    specials |= {token: numbers[token] for token in settings.specials}
    return Vocabulary(ids, merges, specials, settings, takes_whole=scheme == "cl100k")


def _scheme(fields: Fields, where: str) -> str:
    name = fields.text("pre")
    if name not in PRE_TOKENIZERS:
        raise SlmxError(f"{where}: its pre-tokenizer is {name[:40]!a}, and slmx knows {', '.join(PRE_TOKENIZERS)} only")
    return PRE_TOKENIZERS[name]


def _list(fields: Fields, key: str, kind: type[_T]) -> list[_T]:
    values = fields.value(key)
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        raise ValueError(f"{key} is not a list of values of type {kind.__name__}")
    return values


def _pair(merge: str) -> tuple[str, str]:
    left, space, right = merge.partition(" ")
    if not (left and space and right):
        raise ValueError(f"the merge {shown_token(merge)} is not two texts")
    return left, right


def _special(fields: Fields, key: str, tokens: list[str], ordinary: set[str]) -> str | None:
    number = fields.optional(key, lambda name: fields.integer(name, most=len(tokens) - 1))
    if number is None:
        return None
    token = tokens[number]
    if token in ordinary or not is_plain_text(token):
        raise ValueError(f"{key} is {number}, the id of the ordinary token {shown_token(token)}")
    return token
