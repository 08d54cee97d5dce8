"""SentencePiece's BPE: the heap joins what the plain rule joins, in little time, and damaged files are refused."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm.console.errors import SlmxError
from slm.storage.file_names import RANKS_FILE
from slm.tokenizers.byte_level import SINGLE_BYTES
from slm.tokenizers.sentencepiece import SentencePiece
from slm.tokenizers.settings import PREFIXES, TokenizerSettings
from slm.tokenizers.tokenizer import Tokenizer, parse_tokens

LLAMA = TokenizerSettings("sentencepiece", "</s>", "<s>")


def by_the_rule(pieces: Sequence[str], text: str) -> list[int]:
    """The ids by the rule itself: the best pair of neighbours is searched again after each join."""
    ids = {piece: 256 + number for number, piece in enumerate(pieces)}
    parts = list(text.replace("\u2581", " "))
    while True:
        found = [
            (ids[left + right], place)
            for place, (left, right) in enumerate(pairwise(parts))
            if left in ids and right in ids and left + right in ids
        ]
        if not found:
            return [token for part in parts for token in ([ids[part]] if part in ids else part.encode())]
        _, place = min(found)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]


PIECES = st.lists(st.text("ab é", min_size=1, max_size=5), max_size=30, unique=True)


@settings(max_examples=1000, deadline=None)
@given(pieces=PIECES, characters=st.sets(st.sampled_from("ab é")), text=st.text("ab é\u2581\n🙂", max_size=40))
def test_the_heap_joins_what_the_rule_joins(pieces: list[str], characters: set[str], text: str) -> None:
    pieces = [*sorted(characters.difference(pieces)), *pieces]
    engine = SentencePiece([*SINGLE_BYTES, *(piece.encode() for piece in pieces)])
    expected = by_the_rule(pieces, text)
    assert engine.encode(text) == expected
    assert engine.encode_to_numpy(text).tolist() == expected


@settings(max_examples=300, deadline=None)
@given(pieces=PIECES, text=st.text(), prefix=st.sampled_from(PREFIXES))
def test_any_text_survives(pieces: list[str], text: str, prefix: str) -> None:
    tokens = [*SINGLE_BYTES, *(piece.encode() for piece in pieces)]
    tokenizer = Tokenizer(tokens, TokenizerSettings("sentencepiece", "</s>", "<s>", prefix))
    kept = text.replace("\u2581", " ")
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == (kept.removeprefix(" ") if prefix == "first" else kept)
    assert tokenizer.decode([tokenizer.begin, *ids, tokenizer.end_of_text]) == tokenizer.decode(ids)
    assert max(ids, default=0) < tokenizer.end_of_text


def test_one_space_goes_before_a_text_and_one_is_taken_away() -> None:
    tokens = [*SINGLE_BYTES, b" ", b"a", b" a"]
    always, first, never = (
        Tokenizer(tokens, TokenizerSettings("sentencepiece", "</s>", "<s>", prefix)) for prefix in PREFIXES
    )
    assert always.encode("a") == first.encode("a") == [258]
    assert never.encode("a") == [257]
    assert always.encode(" a") == [256, 258]
    assert first.encode(" a") == never.encode(" a") == [258]
    assert (always.decode([258, 258]), never.decode([258, 258])) == ("a a", " a a")
    assert always.encode("") == []
    assert always.encode("a</s>a", allow_special=True) == [258, always.end_of_text, 258]
    assert first.encode("a</s>a", allow_special=True) == [258, first.end_of_text, 257]
    assert first.encode("</s>a", allow_special=True) == [first.end_of_text, 257]


WORDS = (" ", "a", "b", "aa", "aaaa", "  ", " a", "ab")
PHRASES = (" ", "a", "b", "a ", "aa", "  ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pieces", "text"),
    [*((WORDS, text) for text in (" ", "a", " a", "\n", "\u2581", "🙂")), *((PHRASES, text) for text in (" ", "a"))],
)
def test_a_million_characters_are_encoded_whatever_they_are(pieces: tuple[str, ...], text: str) -> None:
    tokenizer = Tokenizer([*SINGLE_BYTES, *(piece.encode() for piece in pieces)], LLAMA)
    long = text * (1_000_000 // len(text)) + "end"
    assert tokenizer.decode(tokenizer.encode(long)) == long.replace("\u2581", " ")


def rank_file(tokens: Sequence[bytes]) -> bytes:
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens))


def test_a_piece_may_repeat_a_single_byte_only_here(tmp_path: Path) -> None:
    content = rank_file([*SINGLE_BYTES, b"a", b"b", b"ab"])
    (tmp_path / RANKS_FILE).write_bytes(content)
    assert Tokenizer.load(tmp_path, LLAMA).encode("ab")[-1] == 258
    with pytest.raises(SlmxError, match="line 257 repeats the token of rank 97"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ([], "its first 256 tokens are not the single bytes in order"),
        (SINGLE_BYTES[:-1], "its first 256 tokens are not the single bytes in order"),
        ([*reversed(SINGLE_BYTES)], "its first 256 tokens are not the single bytes in order"),
        ([*SINGLE_BYTES, b"a", b"\xc3"], "line 258 has a token that is not UTF-8"),
        ([*SINGLE_BYTES, b"\xed\xa0\x80"], "line 257 has a token that is not UTF-8"),
        ([*SINGLE_BYTES, b"a", b"b", b"a"], "line 259 repeats the token of rank 256"),
        ([*SINGLE_BYTES, b""], "line 257 is not a base64 token and its rank"),
    ],
)
def test_damaged_rank_files_are_one_line(tokens: list[bytes], said: str, tmp_path: Path) -> None:
    (tmp_path / RANKS_FILE).write_bytes(rank_file(tokens))
    with pytest.raises(SlmxError, match=said) as caught:
        Tokenizer.load(tmp_path, LLAMA)
    assert RANKS_FILE in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=60) | st.lists(st.binary(max_size=4)).map(rank_file))
def test_any_bytes_are_tokens_or_a_value_error(content: bytes) -> None:
    whole = rank_file(SINGLE_BYTES)
    for one in (content, whole + content):
        with contextlib.suppress(ValueError):
            tokens = parse_tokens(one, "sentencepiece")
            assert tokens[:256] == SINGLE_BYTES
            assert len(set(tokens[256:])) == len(tokens) - 256
            SentencePiece(tokens)


def test_a_chain_of_ever_longer_pieces_does_not_hang() -> None:
    pieces = [b"a" * size for size in range(1, 2000)]
    tokenizer = Tokenizer([*SINGLE_BYTES, b" ", *pieces], LLAMA)
    text = "a" * 20_000
    assert tokenizer.decode(tokenizer.encode(text)) == text
