"""Converts a `tokenizer.bin` of llama2.c, whose stories begin and end with `<s>`."""

from __future__ import annotations

import struct
from pathlib import Path

from slm.console.counted import counted
from slm.console.errors import SlmxError
from slm.importers.imported_tokenizer import (
    BYTE_NAMES,
    ImportedTokenizer,
    Vocabulary,
    check_agreement,
    convert,
    merges_of_scores,
)
from slm.storage.read_errors import unreadable
from slm.tokenizers.sentencepiece import SPACE
from slm.tokenizers.settings import TokenizerSettings

MAX_BYTES = 2**27
BEGIN = "<s>"
# The first tokens; the file spells them in other ways.
FIRST = ["<unk>", BEGIN, "</s>", *BYTE_NAMES]
ENTRY = struct.Struct("<fi")  # the score of a token, and the number of its bytes


def llama2c_tokenizer(path: Path) -> ImportedTokenizer:
    """Reads a `tokenizer.bin`.

    Args:
        path: The file: the largest number of bytes of a token as int32, and for each token its score as float32, its
            number of bytes as int32, and its bytes, all little-endian.

    Raises:
        SlmxError: The file is missing or damaged, or slmx cannot run this tokenizer in the same way.
    """
    try:
        with path.open("rb") as file:
            source = _vocabulary(file.read(MAX_BYTES + 1))
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, struct.error) as error:
        raise SlmxError(f"{path}: not a tokenizer.bin of llama2.c ({error}); download it again") from None
    imported = convert(source, str(path))
    check_agreement(imported, str(path))
    return imported


def _vocabulary(content: bytes) -> Vocabulary:
    if len(content) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES:,} bytes")
    tokens: list[str] = []
    scores: list[float] = []
    place = 4
    while place < len(content):
        score, size = ENTRY.unpack_from(content, place)
        place += ENTRY.size
        if not 0 < size <= len(content) - place:
            raise ValueError(f"token {len(tokens)} has {counted(size, 'byte')}")
        tokens.append(content[place : place + size].decode("utf-8").replace(" ", SPACE))
        scores.append(score)
        place += size
    if tokens[3 : len(FIRST)] != BYTE_NAMES:
        raise ValueError("its tokens 3 to 258 are not the bytes")
    tokens[: len(FIRST)] = FIRST
    ids = {token: number for number, token in enumerate(tokens)}
    if len(ids) < len(tokens):
        raise ValueError("a token is there twice")
    specials = {token: ids.pop(token) for token in FIRST[:3]}
    merges = merges_of_scores({token: scores[number] for token, number in ids.items() if token not in BYTE_NAMES})
    return Vocabulary(ids, merges, specials, TokenizerSettings("sentencepiece", end=BEGIN))
