"""The tokenizer: decoding restores any text, and Hugging Face has the same ids."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import random
import re
import tempfile
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import pytest
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from slm.console.errors import SlmxError
from slm.data.corpus import encode_stories
from slm.folder_kind import PRETRAINED
from slm.storage.file_names import JSON_FILE, RANKS_FILE
from slm.tokenizers.byte_level import LONGEST_SPACE, bounded_pieces
from slm.tokenizers.nfc import to_nfc
from slm.tokenizers.settings import DEFAULT_SETTINGS, END_OF_TEXT, SCHEMES, TokenizerSettings
from slm.tokenizers.tokenizer import Tokenizer, parse_tokens, train_tokenizer
from slm.tokenizers.tokenizer_json import load_merges, tokenizer_json

NANO = PRETRAINED / "nano"
BYTE_LEVEL = [name for name, scheme in SCHEMES.items() if scheme.pattern is not None]
SPLIT_CHARACTERS = " \n\t'.-a1stmdlverSTLVE"
ODD = [
    "",
    " ",
    "   a",
    "a   ",
    "\n\n\t x",
    "don't'll",
    "½²Ⅷ",
    "é e\u0301",
    "👩‍👩‍👧",
    "\u200b\ufeff",
    "naïve 12345 !?",
    "\x00\x7f",
]


@functools.cache
def nano() -> tuple[Tokenizer, tokenizers.Tokenizer]:
    """The shipped tokenizer, as we run it and as Hugging Face does."""
    return Tokenizer.load(NANO), tokenizers.Tokenizer.from_file(str(NANO / JSON_FILE))


@functools.cache
def nano_of_tiktoken() -> tiktoken.Encoding:
    tokenizer, pattern = nano()[0], SCHEMES["gpt2"].pattern
    assert pattern is not None
    ranks = {token: rank for rank, token in enumerate(tokenizer.tokens)}
    return tiktoken.Encoding("test", pat_str=pattern, mergeable_ranks=ranks, special_tokens=tokenizer.specials)


def as_hugging_face_reads(tokenizer: Tokenizer, merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder), merges)
        return tokenizers.Tokenizer.from_file(str(Path(folder, JSON_FILE)))


def byte_stand_ins() -> list[str]:
    """The character by which Hugging Face writes each byte."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    itself = {ord(char): char for char in alphabet if ord(char) < 256}
    others = iter(alphabet[len(itself) :])
    return [itself.get(byte) or next(others) for byte in range(256)]


def with_pairs(pairs: Iterable[bytes], scheme: str) -> tuple[Tokenizer, tokenizers.Tokenizer]:
    """Tokenizers whose tokens are the bytes and these pairs, so that the ids show where the text was split."""
    tokens = [*(bytes([byte]) for byte in range(256)), *pairs]
    ours, stand_in = Tokenizer(tokens, TokenizerSettings(scheme)), byte_stand_ins()
    return ours, as_hugging_face_reads(ours, [(stand_in[t[0]], stand_in[t[1]]) for t in tokens if len(t) == 2])


@functools.cache
def all_pairs(order: int, scheme: str) -> tuple[Tokenizer, tokenizers.Tokenizer]:
    """Every pair of the characters at which texts are split, in random order."""
    pairs = [bytes([a, b]) for a in SPLIT_CHARACTERS.encode() for b in SPLIT_CHARACTERS.encode()]
    random.Random(order).shuffle(pairs)
    return with_pairs(pairs, scheme)


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_any_text_survives(text: str) -> None:
    tokenizer, _ = nano()
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(st.text(max_size=60) | st.text(st.characters(max_codepoint=0x250), max_size=60))
def test_hugging_face_reads_the_same_ids(text: str) -> None:
    ours, theirs = nano()
    if END_OF_TEXT not in text:
        assert theirs.encode(text).ids == ours.encode(text)


def test_both_agree_on_words_cut_and_joined() -> None:
    ours, theirs = nano()
    words = [token.decode("utf-8", "ignore") for token in ours.tokens]
    pick = random.Random(0)
    strings = [*ODD]
    for _ in range(20_000):
        joined = "".join(pick.choices(words, k=pick.randint(1, 4)))
        start = pick.randrange(len(joined) + 1)
        strings.append(joined[start : start + pick.randint(1, 20)])
    differing = [
        s for s, encoded in zip(strings, theirs.encode_batch(strings), strict=True) if encoded.ids != ours.encode(s)
    ]
    assert differing == []
    assert theirs.token_to_id(END_OF_TEXT) == ours.end_of_text
    assert theirs.get_vocab_size() == ours.vocab_size


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("abc é", max_size=40), min_size=1, max_size=6),
    st.integers(258, 300),
    st.lists(st.text("abc é", max_size=30), min_size=1, max_size=40),
)
def test_both_agree_on_whatever_text_they_learned_from(texts: list[str], size: int, strings: list[str]) -> None:
    ours, merges = train_tokenizer(texts, size)
    theirs = as_hugging_face_reads(ours, merges)
    for text in [*texts, *strings]:
        assert theirs.encode(text).ids == ours.encode(text)


def test_every_token_that_is_text_is_its_own_encoding() -> None:
    ours, theirs = nano()
    texts = {}
    for rank, token in enumerate(ours.tokens):
        with contextlib.suppress(UnicodeDecodeError):
            texts[rank] = token.decode()
    assert len(texts) > 7800
    assert [ours.encode(text) for text in texts.values()] == [[rank] for rank in texts]
    assert [encoded.ids for encoded in theirs.encode_batch(list(texts.values()))] == [[rank] for rank in texts]


@pytest.mark.parametrize("scheme", BYTE_LEVEL)
def test_both_split_text_at_the_same_characters(scheme: str) -> None:
    ours, theirs = with_pairs((bytes([byte, tail]) for tail in b"a1.\n" for byte in range(0x80, 0xC0)), scheme)
    characters = [chr(i) for i in [*range(0x80, 0x3100), *range(0x3100, 0x20000, 37)] if not 0xD800 <= i < 0xE000]
    strings = [character + tail for character in characters for tail in "a1.\n"]
    found = [encoded.ids for encoded in theirs.encode_batch(strings)]
    differing = [s for s, ids in zip(strings, found, strict=True) if ids != ours.encode(s)]
    if scheme == "digits":  # `tokenizers` knows the digits of Unicode 17, tiktoken does not
        differing = [s for s in differing if ord(s[0]) not in range(0x11DE0, 0x11DEA)]
    assert differing == []
    if scheme == "gpt2":
        joined = [s[0] for s, ids in zip(strings, found, strict=True) if len(ids) == len(s.encode()) - 1]
        assert joined == characters, "a character is a letter, a digit, a sign or a space, and only one of them"


def test_special_tokens_in_text_are_plain_text() -> None:
    tokenizer, theirs = nano()
    ids = tokenizer.encode(f"a {END_OF_TEXT} b")
    assert tokenizer.end_of_text not in ids
    plain = tokenizers.Tokenizer.from_str(theirs.to_str())
    plain.encode_special_tokens = True
    assert plain.encode(f"a {END_OF_TEXT} b").ids == ids
    assert tokenizer.decode(ids) == f"a {END_OF_TEXT} b"
    assert tokenizer.decode([tokenizer.end_of_text, *tokenizer.encode("hi")]) == "hi"


def test_trained_saved_and_loaded_is_the_same(stories: list[str], tmp_path: Path) -> None:
    tokenizer, merges = train_tokenizer(stories, 350)
    assert tokenizer.vocab_size == 350
    tokenizer.save(tmp_path, merges)
    loaded = Tokenizer.load(tmp_path)
    assert loaded == tokenizer
    assert load_merges(tmp_path) == merges
    assert loaded.end_of_text == 349
    assert [token["id"] for token in json.loads((tmp_path / JSON_FILE).read_text("utf-8"))["added_tokens"]] == [349]
    text = " ".join(stories)
    assert (
        loaded.encode(text)
        == tokenizer.encode(text)
        == tokenizers.Tokenizer.from_file(str(tmp_path / JSON_FILE)).encode(text).ids
    )
    assert len(loaded.encode(text)) < len(text) / 2


def test_a_small_text_gives_a_smaller_vocabulary() -> None:
    tokenizer, _ = train_tokenizer(["abab abab"] * 3, 5000)
    assert 257 < tokenizer.vocab_size < 300


@pytest.mark.parametrize("scheme", BYTE_LEVEL)
@settings(max_examples=200, deadline=None)
@given(st.text(SPLIT_CHARACTERS, max_size=30), st.integers(0, 4))
def test_both_split_contractions_spaces_and_signs_alike(scheme: str, text: str, order: int) -> None:
    ours, theirs = all_pairs(order, scheme)
    assert theirs.encode(text).ids == ours.encode(text)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "0 tokens"),
        (b"!!! 0\n", "line 1 is not"),
        (b"YQ==\n", "line 1 is not"),
        (b"YQ== x\n", "line 1 is not"),
        (b"YQ== 0\nYg== 2\n", "line 2 has rank 2, expected 1"),
        (b"YQ== 0\nYg== -1\n", "line 2 has rank -1, expected 1"),
        (b"YQ== 0\nYg== 1\nYQ== 2\n", "line 3 repeats the token of rank 0"),
        (b"\xff\xfe 0\n", "line 1 is not"),
        (b"".join(b"%s %d\n" % (base64.b64encode(b"%d" % i), i) for i in range(300)), "246 of the 256 single bytes"),
        (b"YQ== 0\n", "1 tokens"),
        (b"YQ== 0\nYg== " + b"9" * 4000, "line 2 has rank 99999999999999999999, expected 1"),
        (b"YQ== 0\nYg== " + b"9" * 5000, "line 2 is not"),
    ],
)
def test_damaged_rank_files(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / RANKS_FILE).write_bytes(content)
    with pytest.raises(SlmxError, match=said) as caught:
        Tokenizer.load(tmp_path)
    assert RANKS_FILE in str(caught.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SlmxError, match=RANKS_FILE):
        Tokenizer.load(tmp_path)
    with pytest.raises(SlmxError, match=JSON_FILE):
        load_merges(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"model": null}',
        '{"model": {}}',
        '{"model": {"merges": 5}}',
        '{"model": {"merges": [["a"]]}}',
        '{"model": {"merges": ["ab"]}}',
        '{"model": {"merges": [["a", 5]]}}',
        '{"model": {"merges": [["a", ""]]}}',
        pytest.param("[" * 100_000, id="deep"),
    ],
)
def test_damaged_merges_are_named(content: str, tmp_path: Path) -> None:
    (tmp_path / JSON_FILE).write_text(content)
    with pytest.raises(SlmxError, match="cannot read the merges") as caught:
        load_merges(tmp_path)
    assert str(tmp_path / JSON_FILE) in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=60) | st.text("YQ= 0123\n", max_size=40).map(str.encode))
def test_any_bytes_are_tokens_or_a_value_error(content: bytes) -> None:
    whole = b"".join(base64.b64encode(bytes([byte])) + b" %d\n" % byte for byte in range(256))
    for one in (content, whole + content):
        with contextlib.suppress(ValueError):
            tokens = parse_tokens(one, DEFAULT_SETTINGS.scheme)
            assert len(set(tokens)) == len(tokens)


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.sampled_from("a b\n\té'.%#"), max_size=60))
def test_bounded_pieces_are_the_text_and_hold_no_long_space(text: str) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("slm.tokenizers.byte_level.LONGEST_SPACE", 3)
        patched.setattr("slm.tokenizers.byte_level._LONG_SPACE", re.compile(r"(?<!\s)\s{4,}"))
        pieces = list(bounded_pieces(text))
    assert "".join(pieces) == text
    assert not [piece for piece in pieces if re.search(r"\s{4}", piece)]
    assert len(pieces) == 1 + sum((len(run) - 1) // 3 for run in re.findall(r"\s+", text))


@settings(max_examples=300, deadline=None)
@given(text=st.text() | st.text(SPLIT_CHARACTERS), special=st.booleans())
def test_ordinary_text_has_the_ids_of_tiktoken(text: str, special: bool) -> None:
    tokenizer, _ = nano()
    encoding = nano_of_tiktoken()
    for one in (text, text.replace("a", END_OF_TEXT)):
        expected = encoding.encode(one, allowed_special="all") if special else encoding.encode_ordinary(one)
        assert tokenizer.encode(one, special) == expected


@pytest.mark.parametrize(
    ("scheme", "text"),
    [
        *(("gpt2", text) for text in (" ", "\n", "\u3000", "a", "1", "!", "\r\n", " x")),
        *((scheme, text) for scheme in BYTE_LEVEL[1:] for text in (" ", "\n", "a", "1")),
        ("qwen2", "\u0301\u0323"),
    ],
)
def test_a_million_characters_are_encoded_whatever_they_are(scheme: str, text: str) -> None:
    tokenizer = Tokenizer(nano()[0].tokens, TokenizerSettings(scheme))
    long = text * (1_000_000 // len(text)) + "end"
    ids = tokenizer.encode(long)
    assert tokenizer.decode(ids) == (long if scheme != "qwen2" else to_nfc(long))
    assert list(encode_stories([long], tokenizer).ids[:]) == [tokenizer.end_of_text, *ids]


@settings(max_examples=500, deadline=None)
@given(
    st.text(
        st.sampled_from("aeU\u0301\u0323\u0334\u0344\u0f71\u0f73\u1100\u1161\u11a8\uac00\u212b\u0958") | st.characters()
    )
)
def test_the_normal_form_is_that_of_unicode(text: str) -> None:
    assert to_nfc(text) == unicodedata.normalize("NFC", text)


def test_a_space_below_the_bound_is_encoded_as_a_whole() -> None:
    tokenizer, _ = nano()
    text = "a" + "\n" * LONGEST_SPACE + "b"
    assert tokenizer.encode(text) == nano_of_tiktoken().encode_ordinary(text)


def test_an_id_outside_the_vocabulary_is_named() -> None:
    tokenizer, _ = nano()
    for wrong in (-1, tokenizer.vocab_size, 10**30):
        with pytest.raises(SlmxError, match=f"no token has the id {wrong}; ids go from 0 to 7999"):
            tokenizer.decode([0, wrong])


def test_the_longest_token_bounds_the_number_of_tokens() -> None:
    tokenizer, _ = nano()
    longest = max(tokenizer.tokens, key=len).decode()
    for text in (longest * 50, "The end. " * 50, END_OF_TEXT * 50):
        assert len(tokenizer.encode(text, allow_special=True)) >= len(text.encode()) / tokenizer.longest_token


def test_a_token_without_merges_is_taken_whole_also_if_bytes_are_missing() -> None:
    tokens = [*(bytes([byte]) for byte in range(245)), b"xyz"]
    ours = Tokenizer(tokens)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(ours, [])))
    assert theirs.encode("xyz", add_special_tokens=False).ids == ours.encode("xyz") == [245]
