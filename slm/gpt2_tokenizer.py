"""Converts a byte-level BPE `tokenizer.json` of Hugging Face to a slmx tokenizer.

slmx numbers the bytes first, then the merges in the order they were learned, and `<|endoftext|>` last. Other tokenizers
can have other orders. So the ids can change, and the rows of the token table must be put into the new order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slm.errors import SlmxError
from slm.json_reader import Fields, as_plain_text, read_json
from slm.tokenizer import END_OF_TEXT, JSON_FILE, MAX_JSON_BYTES, Tokenizer, read_merges, to_bytes

# Texts on which byte-level tokenizers differ: contractions, spaces, digits, other scripts, rare bytes.
PROBES = (
    'Once upon a time, there was a little girl. She didn\'t say "no"!',
    "  two  spaces\tand tabs\n\nand lines \n end ",
    "I'LL we've THEY'RE 1234 3.14 x2 ½ ²",
    "Zoë naïve façade — “quotes” … ‘single’",
    "Привет, мир! 你好，世界。 こんにちは 안녕 مرحبا नमस्ते",
    "🙂👩‍👩‍👧‍👦🏳️‍🌈 e\u0301 \u200b\u00a0\u3000\r\n\x00\x7f",
)


# An added token is special if it has one of these roles in `tokenizer_config.json`, or one of these usual spellings.
# slmx leaves special tokens out and reads them as plain text.
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
CONTROL_TOKENS = frozenset(
    [
        "<s>",
        "</s>",
        "<pad>",
        "<unk>",
        "<mask>",
        "<bos>",
        "<eos>",
        "<sep>",
        "<cls>",
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[BOS]",
        "[EOS]",
        "<|endoftext|>",
        "<|startoftext|>",
        "<|pad|>",
        "<|padding|>",
    ]
)
NAMES_SHOWN = 3


@dataclass(frozen=True)
class ImportedTokenizer:
    """A slmx tokenizer that was made from a Hugging Face tokenizer.

    Attributes:
        tokenizer: The slmx tokenizer.
        merges: Its merges, in the order they were learned.
        rows: For each slmx id, the Hugging Face id of the same token.
        left_out: Special tokens of the Hugging Face tokenizer that slmx does not have.
        begins_with: The Hugging Face token that begins a text; None if it is the one that ends a text.
    """

    tokenizer: Tokenizer
    merges: list[tuple[str, str]]
    rows: list[int]
    left_out: list[str]
    begins_with: str | None


def import_tokenizer(folder: Path, config: Mapping[str, object]) -> ImportedTokenizer:
    """Reads the `tokenizer.json` of a Hugging Face folder.

    Args:
        folder: The folder.
        config: The content of its `config.json`, which names the ids of the tokens that begin and end a text.

    Raises:
        SlmxError: The file is missing or damaged, is not byte-level BPE as in GPT-2, has added tokens that slmx cannot
            keep, or splits a text in a different way than slmx.
    """
    path = folder / JSON_FILE
    try:
        stored = Fields(read_json(path, MAX_JSON_BYTES))
        model = stored.object("model")
        merges = read_merges(model)
        tokens = model.object("vocab")
        vocab = {token: tokens.integer(token) for token in tokens}
        added = _added_tokens(stored)
    except FileNotFoundError:
        raise SlmxError(
            f"{path}: missing; AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR) of transformers writes one"
        ) from None
    except OSError as error:
        raise SlmxError(f"{path}: cannot read ({error.strerror}); check its permissions") from None
    except ValueError as error:
        raise SlmxError(f"{path}: not a byte-level BPE tokenizer ({error}); download the folder again") from None
    _check_rules(stored, model, path)
    order = [token for token in vocab if len(token) == 1 and token not in added]
    order += dict.fromkeys(left + right for left, right in merges)
    ids = vocab | added
    end = _end_of_text(config, ids, set(order), path)
    left_out = [token for token in added if token != end]
    _check_added(left_out, folder, path)
    try:
        ranks = {to_bytes(token): rank for rank, token in enumerate(order)}
        rows = [ids[token] for token in [*order, end]]
    except KeyError as error:
        raise SlmxError(
            f"{path}: the token {_shown(str(error.args[0]))} is not one of byte-level BPE; slmx imports only "
            "tokenizers like that of GPT-2"
        ) from None
    missing = 256 - sum(bytes([byte]) in ranks for byte in range(256))
    if missing:
        raise SlmxError(
            f"{path}: {missing} of the 256 bytes are not tokens, so some text cannot be encoded; slmx imports only "
            "tokenizers like that of GPT-2"
        )
    if len(set(rows)) < len(rows):
        raise SlmxError(f"{path}: two tokens have one id; download the folder again")
    begin = next((token for token, number in ids.items() if number == config.get("bos_token_id")), end)
    imported = ImportedTokenizer(Tokenizer(ranks), merges, rows, left_out, None if begin == end else begin)
    _check_agreement(imported, path)
    return imported


def _shown(token: str) -> str:
    """Formats a token in quotes for one line of a message."""
    return ascii(token[:40])


def _some(tokens: list[str]) -> str:
    more = len(tokens) - NAMES_SHOWN
    return ", ".join(map(_shown, tokens[:NAMES_SHOWN])) + (f" and {more} more" if more > 0 else "")


def _added_tokens(stored: Fields) -> dict[str, int]:
    """Returns the id of each token in `added_tokens`; ValueError if an entry has none."""
    listed = stored.optional("added_tokens", stored.value) or []
    if not isinstance(listed, list):
        raise ValueError("added_tokens is not a list")
    entries = [Fields(entry, f"added_tokens {number}") for number, entry in enumerate(listed)]
    return {entry.text("content"): entry.integer("id") for entry in entries}


def _check_rules(stored: Fields, model: Fields, path: Path) -> None:
    """Checks that the rules are those of GPT-2: no normalizer, and ByteLevel without an added space before the text."""
    splitter = stored.optional("pre_tokenizer", stored.value)
    plain = (
        isinstance(splitter, dict)
        and splitter.get("type") == "ByteLevel"
        and splitter.get("add_prefix_space", True) is False
        and splitter.get("use_regex", True) is True
    )
    is_bpe = model.optional("type", model.value) in (None, "BPE")
    normalizer = stored.optional("normalizer", stored.value)
    if normalizer or not is_bpe or not plain:
        raise SlmxError(
            f"{path}: splits text in another way than GPT-2 (BPE, ByteLevel, add_prefix_space false, no normalizer), "
            "which slmx cannot do"
        )


def _end_of_text(config: Mapping[str, object], ids: Mapping[str, int], ordinary: set[str], path: Path) -> str:
    """Returns the token that ends a text: the one that config.json names if it exists, or else `<|endoftext|>`."""
    wanted = config.get("eos_token_id")
    if isinstance(wanted, list) and len(wanted) == 1:
        wanted = wanted[0]
    if wanted is not None and (not isinstance(wanted, int) or isinstance(wanted, bool)):
        raise SlmxError(
            f"{path.with_name('config.json')}: eos_token_id is {repr(wanted)[:40]}; set it to the id that ends a text"
        )
    end = next((token for token, number in ids.items() if number == wanted), END_OF_TEXT)
    if end not in ids:
        raise SlmxError(f"{path}: no end-of-text token; name its id as eos_token_id in config.json")
    if end in ordinary:
        right = f"{ids[END_OF_TEXT]} ({END_OF_TEXT})" if END_OF_TEXT in ids else "the id of the token that ends a text"
        raise SlmxError(
            f"{path.with_name('config.json')}: eos_token_id is {wanted}, the id of the ordinary token {_shown(end)}; "
            f"set it to {right}"
        )
    return end


def _check_added(tokens: list[str], folder: Path, path: Path) -> None:
    """Refuses added tokens that texts can contain. A bundle stores tiktoken's rank format, which cannot hold them."""
    try:
        roles = read_json(folder / "tokenizer_config.json", MAX_JSON_BYTES)
    except (OSError, ValueError):
        roles = None
    control = set(CONTROL_TOKENS)
    for role in ROLES:
        token = roles.get(role) if isinstance(roles, dict) else None
        content = token.get("content") if isinstance(token, dict) else token
        if isinstance(content, str):
            control.add(content)
    if unknown := [token for token in tokens if token not in control]:
        raise SlmxError(
            f"{path}: has the added tokens {_some(unknown)}, which slmx cannot keep; if no text needs them, delete "
            "them from added_tokens in this file and import again"
        )


def _check_agreement(imported: ImportedTokenizer, path: Path) -> None:
    """Checks that both tokenizers give the same tokens for the probes and for the text of every token."""
    from tokenizers import Tokenizer as HuggingFaceTokenizer

    try:
        other = HuggingFaceTokenizer.from_file(str(path))
    except Exception as error:  # `tokenizers` raises no narrower class
        reason = as_plain_text(str(error))[:200]
        raise SlmxError(f"{path}: tokenizers cannot read it ({reason}); download the folder again") from None
    other.no_padding()
    other.no_truncation()
    other.encode_special_tokens = True
    ours = imported.tokenizer
    words = [token.decode("utf-8") for token in ours.ranks if _is_text(token)]
    texts = [*PROBES, *words]
    for text, theirs in zip(texts, other.encode_batch(texts, add_special_tokens=False), strict=True):
        if [imported.rows[token] for token in ours.encode(text)] != theirs.ids:
            raise SlmxError(f"{path}: splits {_shown(text)} in another way than slmx would, so it cannot be imported")


def _is_text(token: bytes) -> bool:
    return token.decode("utf-8", "ignore").encode("utf-8") == token
