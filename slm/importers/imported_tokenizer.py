"""Makes a slmx tokenizer from the vocabulary of another tool.

slmx numbers the bytes first, then the characters, then the merges in the order they were learned, and the special
tokens last. Other tokenizers can have other orders. So the ids can change, and the rows of the token table must be put
into the new order.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby

from slm.console.errors import SlmxError
from slm.storage.read_errors import reason_of
from slm.tokenizers.byte_level import MOST_MISSING_BYTES, SINGLE_BYTES, missing_bytes
from slm.tokenizers.sentencepiece import SPACE
from slm.tokenizers.settings import SCHEMES, TokenizerSettings
from slm.tokenizers.tokenizer import Tokenizer, is_text
from slm.tokenizers.tokenizer_json import byte_name, to_bytes, tokenizer_json

# Texts on which tokenizers differ: contractions, spaces, digits, other scripts, rare bytes.
PROBES = (
    'Once upon a time, there was a little girl. She didn\'t say "no"!',
    "  two  spaces\tand tabs\n\nand lines \n end ",
    "I'LL we've THEY'RE 1234 3.14 x2 ½ ²",
    "Zoë naïve façade — “quotes” … ‘single’",
    "Привет, мир! 你好，世界。 こんにちは 안녕 مرحبا नमस्ते",
    "🙂👩‍👩‍👧‍👦🏳️‍🌈 e\u0301 \u200b\u00a0\u3000\r\n\x00\x7f",
    "x \u2581 y 7  8\n9\r\n\r\n  !?\n\n",
)
NAMES_SHOWN = 3
LONGEST_PIECE = 500
BYTE_NAMES = [byte_name(byte) for byte in range(256)]


@dataclass(frozen=True)
class ImportedTokenizer:
    """A slmx tokenizer that was made from the tokenizer of another tool.

    Attributes:
        tokenizer: The slmx tokenizer.
        merges: Its merges, in the order they were learned.
        rows: For each slmx id, the id of the same token in the other tool.
        left_out: Special tokens of the other tokenizer that slmx does not have.
    """

    tokenizer: Tokenizer
    merges: list[tuple[str, str]]
    rows: list[int]
    left_out: list[str]


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of another tool, as tokenizer.json spells them.

    Attributes:
        ids: The id of each token that text can contain. Special tokens in it are left out.
        merges: The pairs in the order they were learned.
        specials: The id of each special token.
        settings: How text is split, and the special tokens that begin and end a text.
        takes_whole: Whether a piece of text that is a token is taken as a whole, also if no merges lead to it.
    """

    ids: Mapping[str, int]
    merges: list[tuple[str, str]]
    specials: Mapping[str, int]
    settings: TokenizerSettings
    takes_whole: bool = False


def convert(source: Vocabulary, where: str) -> ImportedTokenizer:
    """Makes a slmx tokenizer.

    Args:
        source: The tokens of the other tool.
        where: The file, for messages.

    Raises:
        SlmxError: slmx cannot encode every text with these tokens, or in another way than the other tool.
    """
    pieces = SCHEMES[source.settings.scheme].pattern is None
    ids = {**source.ids, **source.specials}
    fixed = {*source.specials, *BYTE_NAMES} if pieces else set(source.specials)

    def is_used(token: str) -> bool:  # SentencePiece sees no plain spaces
        return token not in fixed and not (pieces and " " in token)

    merges = [pair for pair in source.merges if all(map(is_used, (*pair, "".join(pair))))]
    order = [token for token in source.ids if len(token) == 1 and is_used(token)]
    order += _joined(merges, where)
    if source.takes_whole:
        order += _unreachable(source.ids, fixed.union(order), where)
    try:
        if pieces:
            tokens = [*SINGLE_BYTES, *(token.replace(SPACE, " ").encode("utf-8") for token in order)]
            order = BYTE_NAMES + order
        else:
            tokens = [to_bytes(token) for token in order]
        rows = [ids[token] for token in [*order, *source.settings.specials]]
    except KeyError as error:
        problem = "missing" if pieces else "not one of byte-level BPE"
        raise SlmxError(
            f"{where}: the token {shown_token(str(error.args[0]))} is {problem}; slmx cannot import this tokenizer"
        ) from None
    except UnicodeEncodeError:
        raise SlmxError(f"{where}: a token is not valid Unicode; download it again") from None
    if (missing := len(missing_bytes(tokens))) > MOST_MISSING_BYTES:
        raise SlmxError(
            f"{where}: {missing} of the 256 bytes are not tokens, so most text cannot be encoded; "
            "slmx cannot import this tokenizer"
        )
    if len(set(rows)) < len(rows):
        raise SlmxError(f"{where}: two tokens have one id; download it again")
    left_out = [token for token in source.specials if token not in (*source.settings.specials, *BYTE_NAMES)]
    return ImportedTokenizer(Tokenizer(tokens, source.settings), merges, rows, left_out)


def _joined(merges: list[tuple[str, str]], where: str) -> list[str]:
    """Returns the tokens that merges lead to. A token can have several merges, one directly after the other."""
    joined = [token for token, _ in groupby(left + right for left, right in merges)]
    if len(set(joined)) < len(joined):
        token = Counter(joined).most_common(1)[0][0]
        raise SlmxError(
            f"{where}: has merges of {shown_token(token)} in two places, so slmx would join them in another order; "
            "slmx cannot import this tokenizer"
        )
    return joined


def _unreachable(ids: Mapping[str, int], reached: set[str], where: str) -> list[str]:
    """Returns the tokens that no merges lead to. Each must also have no two parts, because tiktoken would join them."""
    found = [token for token in ids if token not in reached]
    known = reached.union(found)
    for token in found:
        if any(token[:cut] in known and token[cut:] in known for cut in range(1, len(token))):
            raise SlmxError(
                f"{where}: has no merge of {shown_token(token)}, but slmx would join its parts; "
                "slmx cannot import this tokenizer"
            )
    return found


def merges_of_scores(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """Returns the merges of a SentencePiece vocabulary: all pairs of tokens that are a token, the highest score first.

    Args:
        scores: The score of each token, without the bytes and the special tokens.

    Raises:
        ValueError: A score is no number, two tokens have one score, or a token is too long.
    """
    longer = sorted((token for token in scores if len(token) > 1), key=lambda token: -scores[token])
    merges = []
    for number, token in enumerate(longer):
        if len(token) > LONGEST_PIECE:
            raise ValueError(f"the token {shown_token(token)}... has more than {LONGEST_PIECE} characters")
        if not math.isfinite(scores[token]):
            raise ValueError(f"the score of {shown_token(token)} is no number")
        if number and scores[token] == scores[longer[number - 1]]:
            raise ValueError(
                f"{shown_token(longer[number - 1])} and {shown_token(token)} have one score, so their order is unknown"
            )
        merges += [
            (token[:cut], token[cut:])
            for cut in range(1, len(token))
            if token[:cut] in scores and token[cut:] in scores
        ]
    return merges


def check_agreement(imported: ImportedTokenizer, where: str, content: str | None = None) -> None:
    """Checks that `tokenizers` gives the same tokens for the probes and for the text of every token.

    Args:
        imported: The tokenizer that was made.
        where: The file that it was made from, for messages.
        content: The tokenizer.json that it was made from; None to check the one that slmx will write.

    Raises:
        SlmxError: `tokenizers` cannot read the file or gives other tokens.
    """
    from tokenizers import Tokenizer as HuggingFaceTokenizer

    rows = imported.rows
    if content is None:
        content, rows = json.dumps(tokenizer_json(imported.tokenizer, imported.merges)), list(range(len(rows)))
    try:
        other = HuggingFaceTokenizer.from_str(content)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # `tokenizers` raises Exception, and a panic of its Rust code BaseException
        raise SlmxError(f"{where}: tokenizers cannot read it ({reason_of(error)}); download it again") from None
    other.no_padding()
    other.no_truncation()
    other.encode_special_tokens = True
    ours = imported.tokenizer
    words = [token.decode("utf-8") for token in ours.tokens if is_text(token)]
    texts = [*PROBES, *words]
    for text, theirs in zip(texts, other.encode_batch(texts, add_special_tokens=False), strict=True):
        if [rows[token] for token in ours.encode(text)] != theirs.ids:
            raise SlmxError(
                f"{where}: splits {shown_token(text)} in another way than slmx would, so it cannot be imported"
            )


def reachable(ids: Mapping[str, int], merges: list[tuple[str, str]], specials: Iterable[str]) -> set[str]:
    """Returns the tokens that text can contain: the characters and the joined pairs, without the special tokens."""
    characters = (token for token in ids if len(token) == 1)
    return {*characters, *(left + right for left, right in merges)}.difference(specials)


def shown_token(token: str) -> str:
    """Formats a token in quotes for one line of a message."""
    return ascii(token[:40])


def some(tokens: list[str]) -> str:
    """Formats tokens for one line of a message. At most three are named."""
    more = len(tokens) - NAMES_SHOWN
    return ", ".join(map(shown_token, tokens[:NAMES_SHOWN])) + (f" and {more} more" if more > 0 else "")
