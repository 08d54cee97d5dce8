"""`tokenizer.json`: a tokenizer as Hugging Face's `tokenizers` and related tools read it, and the merges in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slm.storage.file_names import JSON_FILE
from slm.storage.json_reader import Fields, parse_json, read_limited
from slm.storage.read_errors import unreadable
from slm.tokenizers.sentencepiece import BYTES, SPACE
from slm.tokenizers.settings import SCHEMES, TokenizerSettings
from slm.tokenizers.tokenizer import Tokenizer

MAX_JSON_BYTES = 2**27


def load_merges(folder: Path) -> list[tuple[str, str]]:
    """Reads the merges of a folder's `tokenizer.json`, in the order they were learned; SlmxError if that fails."""
    path = folder / JSON_FILE
    try:
        content = read_limited(path, MAX_JSON_BYTES)
    except (OSError, ValueError) as error:
        raise unreadable(path, error, "the merges", "copy the folder again") from error
    return parse_merges(content, str(path))


def parse_merges(content: bytes, where: str) -> list[tuple[str, str]]:
    """Reads the merges of a `tokenizer.json` of which the content is given; `where` names it in the SlmxError."""
    try:
        return read_merges(Fields(parse_json(content)).object("model"))
    except ValueError as error:
        raise unreadable(where, error, "the merges", "copy the folder again") from error


def read_merges(model: Fields) -> list[tuple[str, str]]:
    """Reads the merges of the `model` in a `tokenizer.json`.

    Each merge is a pair of texts, or one text with a space between the two parts.

    Raises:
        ValueError: A merge is neither.
    """
    merges = model.value("merges")
    if not isinstance(merges, list):
        raise ValueError("model.merges is not a list")
    pairs = []
    for number, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(map(_is_part, pair)):
            raise ValueError(f"merge {number} is not a pair of texts")
        pairs.append((pair[0], pair[1]))
    return pairs


def _is_part(value: object) -> bool:
    """Returns whether a value can be half of a merge: a text that UTF-8 can write, so one without lone surrogates."""
    return isinstance(value, str) and value != "" and value.encode("utf-8", "ignore").decode("utf-8") == value


def _byte_alphabet() -> dict[int, str]:
    """Returns GPT-2's printable character for each byte: printable Latin-1 is unchanged, the rest is from U+0100."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


_BYTE_TO_CHAR = _byte_alphabet()
_CHAR_TO_BYTE = {char: byte for byte, char in _BYTE_TO_CHAR.items()}


def to_unicode(token: bytes) -> str:
    """Returns a token as the tokenizer.json of byte-level BPE spells it."""
    return "".join(_BYTE_TO_CHAR[byte] for byte in token)


def to_bytes(token: str) -> bytes:
    """Returns the bytes of a token of byte-level BPE; KeyError for a character that stands for no byte."""
    return bytes(_CHAR_TO_BYTE[char] for char in token)


def byte_name(byte: int) -> str:
    """Returns the token of a byte as SentencePiece spells it."""
    return f"<0x{byte:02X}>"


def spell(tokens: list[bytes], scheme: str) -> list[str]:
    """Returns the ordinary tokens of a tokenizer as its tokenizer.json spells them."""
    if SCHEMES[scheme].pattern is not None:
        return [to_unicode(token) for token in tokens]
    pieces = [token.decode("utf-8").replace(" ", SPACE) for token in tokens[BYTES:]]
    return [*map(byte_name, range(BYTES)), *pieces]


def tokenizer_json(tokenizer: Tokenizer, merges: list[tuple[str, str]]) -> dict[str, Any]:
    """Returns the content of a tokenizer.json.

    Args:
        tokenizer: The tokenizer.
        merges: Its pairs in the order they were learned.
    """
    settings = tokenizer.settings
    spelled = spell(tokenizer.tokens, settings.scheme)
    specials = tokenizer.specials
    pieces = SCHEMES[settings.scheme].pattern is None
    # tiktoken takes a piece of text that is a token as a whole, also if no merges lead to it.
    merged = {left + right for left, right in merges}
    has_unmerged = any(len(token) > 1 and token not in merged for token in spelled)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": token,
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
            for token, number in specials.items()
        ],
        **pipeline(settings),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": pieces,
            "ignore_merges": not pieces and has_unmerged,
            "vocab": {token: number for number, token in enumerate(spelled)} | specials,
            "merges": [list(pair) for pair in merges],
        },
    }


def pipeline(settings: TokenizerSettings) -> dict[str, Any]:
    """Returns the steps of a tokenizer.json other than its model, in the order of the file."""
    if settings.scheme == "sentencepiece":
        return _sentencepiece(settings.prefix)
    scheme = SCHEMES[settings.scheme]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    splitter: dict[str, Any] = level
    if settings.scheme == "digits":
        splitter = _sequence("pretokenizers", {"type": "Digits", "individual_digits": True}, level)
    elif settings.scheme != "gpt2":
        regex = {"type": "Split", "pattern": {"Regex": scheme.pattern}, "behavior": "Isolated", "invert": False}
        splitter = _sequence("pretokenizers", regex, level | {"use_regex": False})
    return _steps({"type": "NFC"} if scheme.nfc else None, splitter, level)


def _sentencepiece(prefix: str) -> dict[str, Any]:
    space_to_mark = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    normalizer: dict[str, Any] | None = space_to_mark
    splitter: dict[str, Any] | None = None
    if prefix == "always":
        normalizer = _sequence("normalizers", {"type": "Prepend", "prepend": SPACE}, space_to_mark)
    elif prefix == "first":
        normalizer = None
        splitter = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": False}
    steps: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefix != "never":
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return _steps(normalizer, splitter, _sequence("decoders", *steps))


def _steps(
    normalizer: dict[str, Any] | None, splitter: dict[str, Any] | None, decoder: dict[str, Any]
) -> dict[str, Any]:
    return {"normalizer": normalizer, "pre_tokenizer": splitter, "post_processor": None, "decoder": decoder}


def _sequence(name: str, *steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", name: list(steps)}
