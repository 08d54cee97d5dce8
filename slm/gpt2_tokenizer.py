"""A byte-level BPE `tokenizer.json` from elsewhere, brought into slmx's order of ids.

slmx numbers the bytes first, then the merges in the order they were learned, `<|endoftext|>` last. Other trainers
number otherwise, so the ids move, and the rows of the token table with them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm.errors import SlmxError
from slm.tokenizer import JSON_FILE, Tokenizer, to_bytes

# Where byte-level tokenizers differ: contractions, spaces, digits, marks of other scripts, bytes in many forms.
PROBES = (
    'Once upon a time, there was a little girl. She didn\'t say "no"!',
    "  two  spaces\tand tabs\n\nand lines \n end ",
    "I'LL we've THEY'RE 1234 3.14 x2 ½ ²",
    "Zoë naïve façade — “quotes” … ‘single’",
    "Привет, мир! 你好，世界。 こんにちは 안녕 مرحبا नमस्ते",
    "🙂👩‍👩‍👧‍👦🏳️‍🌈 e\u0301 \u200b\u00a0\u3000\r\n\x00\x7f",
)


@dataclass(frozen=True)
class ImportedTokenizer:
    """Our tokenizer, its merges, and for each of our ids the row of the other model's token table."""

    tokenizer: Tokenizer
    merges: list[tuple[str, str]]
    rows: list[int]

    @property
    def vocab_size(self) -> int:
        """Number of our ids."""
        return self.tokenizer.vocab_size


def import_tokenizer(folder: Path) -> ImportedTokenizer:
    """Read `tokenizer.json`; SlmxError if it is missing, no byte-level BPE like GPT-2's, or cannot be reproduced."""
    path = folder / JSON_FILE
    try:
        stored = json.loads(path.read_text("utf-8"))
        model = stored["model"]
        vocab: dict[str, int] = dict(model["vocab"])
        merges = [_pair(merge) for merge in model["merges"]]
        added = {token["content"]: int(token["id"]) for token in stored.get("added_tokens") or ()}
    except FileNotFoundError:
        raise SlmxError(f"{path}: missing; save_pretrained of a fast AutoTokenizer writes one") from None
    except (ValueError, KeyError, TypeError) as error:
        raise SlmxError(f"{path}: not a byte-level BPE tokenizer ({error!r})") from error
    _check_rules(stored, path)
    order = [token for token in vocab if len(token) == 1 and token not in added]
    order += dict.fromkeys(left + right for left, right in merges)
    try:
        ranks = {to_bytes(token): rank for rank, token in enumerate(order)}
        rows = [vocab[token] for token in order] + [_end_of_text(folder, added | vocab, path)]
    except KeyError as error:
        raise SlmxError(f"{path}: token {error.args[0]!r} is no byte-level one; slmx needs GPT-2's kind") from None
    missing = 256 - sum(bytes([byte]) in ranks for byte in range(256))
    if missing:
        raise SlmxError(f"{path}: {missing} of the 256 bytes are no tokens, so some text cannot be encoded")
    imported = ImportedTokenizer(Tokenizer(ranks), merges, rows)
    _check_agreement(imported, path)
    return imported


def _pair(merge: str | list[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _check_rules(stored: dict[str, Any], path: Path) -> None:
    """Normalizer and split rule must be GPT-2's: none, and ByteLevel without a space put in front."""
    splitter = stored.get("pre_tokenizer") or {}
    plain = (
        splitter.get("type") == "ByteLevel"
        and not splitter.get("add_prefix_space", True)
        and splitter.get("use_regex", True)
    )
    if stored["model"].get("type", "BPE") != "BPE" or not plain or stored.get("normalizer"):
        raise SlmxError(
            f"{path}: splits text otherwise than GPT-2 does (BPE, ByteLevel, add_prefix_space false, no normalizer)"
        )


def _end_of_text(folder: Path, ids: dict[str, int], path: Path) -> int:
    """The id that ends a text: what config.json calls eos if the tokenizer has it, else `<|endoftext|>`."""
    stored = json.loads((folder / "config.json").read_text("utf-8"))
    end = stored.get("eos_token_id")
    found = end if end in ids.values() else ids.get("<|endoftext|>")
    if found is None:
        raise SlmxError(f"{path}: no end-of-text token; name its id as eos_token_id in config.json")
    return int(found)


def _check_agreement(imported: ImportedTokenizer, path: Path) -> None:
    from tokenizers import Tokenizer as Theirs

    theirs = Theirs.from_file(str(path))
    for text in PROBES:
        ours = [imported.rows[token] for token in imported.tokenizer.encode(text)]
        if ours != theirs.encode(text, add_special_tokens=False).ids:
            raise SlmxError(f"{path}: slmx would split {text!r} otherwise than it does, so it cannot be imported")
