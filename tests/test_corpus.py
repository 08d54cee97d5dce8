"""Reading stories, and the token streams made of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm.corpus import TokenStream, bits_per_byte, encode_stories, is_held_out, read_stories
from slm.errors import SlmxError
from slm.tokenizer import END_OF_TEXT, Tokenizer, train_tokenizer


def test_text_and_jsonl_hold_the_same_stories(stories: list[str], corpus_file: Path, tmp_path: Path) -> None:
    lines = tmp_path / "stories.jsonl"
    lines.write_text("\n\n".join(json.dumps({"text": story, "id": 1}) for story in stories), "utf-8")
    assert list(read_stories([corpus_file])) == stories
    assert list(read_stories([lines])) == stories
    assert list(read_stories([corpus_file, lines])) == stories * 2


def test_separators_and_blank_stories(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(
        f"{END_OF_TEXT}\n one\nmore \n  {END_OF_TEXT}  \r\n\n{END_OF_TEXT}\ntwo {END_OF_TEXT} still two", "utf-8"
    )
    assert list(read_stories([path])) == ["one\nmore", f"two {END_OF_TEXT} still two"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"", "holds no story"),
        ("a.txt", b"<|endoftext|>\n \n", "holds no story"),
        ("a.txt", b"hello\nab\0c\n", ":2: a binary file"),
        ("a.txt", b"hello\n\xff\xfe\n", ":2: not UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n{"text": 1}\n', ':2: expected a JSON object with a "text"'),
        ("a.jsonl", b"[1]\n", ":1: expected"),
        ("a.jsonl", b"nonsense\n", ":1: expected"),
        ("a.jsonl", b'\n{"text": null}\n', ":2: expected"),
        ("a.jsonl", b'{"text": "half a pair \\ud83d"}\n', ":1: expected"),
        ("a.jsonl", b"[" * 100_000, ":1: expected"),
        ("a.jsonl", b'{"text": " "}\n', "holds no story"),
    ],
)
def test_unusable_files_are_named_with_the_line(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SlmxError) as caught:
        list(read_stories([path]))
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"{END_OF_TEXT}\none\n", "utf-8-sig")
    (tmp_path / "a.jsonl").write_text('{"text": "two"}\n', "utf-8-sig")
    assert list(read_stories([tmp_path / "a.txt", tmp_path / "a.jsonl"])) == ["one", "two"]


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(SlmxError, match="cannot read the corpus"):
            list(read_stories([path]))


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 200), st.integers(1, 20), st.integers(0, 20))
def test_windows_lie_side_by_side_and_targets_are_shifted_by_one(length: int, block: int, offset: int) -> None:
    stream = TokenStream(np.arange(length, dtype=np.uint16), text_bytes=length, stories=1)
    if (length - 1 - offset) // block < 1:
        with pytest.raises(SlmxError, match="shorter than one context"):
            stream.windows(block, offset)
        return
    inputs, targets = stream.windows(block, offset)
    assert inputs.shape == targets.shape
    assert inputs.shape[1] == block
    np.testing.assert_array_equal(inputs.ravel(), np.arange(offset, offset + inputs.size))
    np.testing.assert_array_equal(targets, inputs + 1)
    assert length - 1 - offset - inputs.size < block


def test_every_story_begins_with_end_of_text_and_bytes_are_its_own(tiny_checkpoint: Path) -> None:
    tokenizer = Tokenizer.load(tiny_checkpoint)
    stream = encode_stories(["Ada é", "Bo"], tokenizer)
    first, second = tokenizer.encode("Ada é"), tokenizer.encode("Bo")
    assert stream.ids.tolist() == [tokenizer.end_of_text, *first, tokenizer.end_of_text, *second]
    assert stream.text_bytes == len("Ada é".encode()) + 2
    assert stream.bytes_per_token == stream.text_bytes / len(stream.ids)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=40), max_size=8))
def test_a_stream_holds_the_stories_and_their_bytes(texts: list[str]) -> None:
    tokenizer, _ = train_tokenizer(texts, 300)
    stream = encode_stories(texts, tokenizer)
    starts = np.flatnonzero(stream.ids == tokenizer.end_of_text)
    pieces = np.split(stream.ids, starts)[1:]
    assert [tokenizer.decode(piece.tolist()) for piece in pieces] == texts
    assert stream.stories == len(texts)
    assert stream.text_bytes == sum(len(text.encode()) for text in texts)


def test_a_vocabulary_past_16_bits_is_refused() -> None:
    ranks = {bytes([i]): i for i in range(256)}
    ranks |= {bytes([i >> 8, i & 255]): 256 + i for i in range(65536 - 256)}
    with pytest.raises(SlmxError, match="65537 does not fit 16-bit"):
        encode_stories(["a"], Tokenizer(ranks))
    del ranks[next(reversed(ranks))]
    stream = encode_stories(["a"], Tokenizer(ranks))
    assert stream.ids.tolist() == [65535, ord("a")]


def test_held_out_share_is_about_a_twentieth_and_follows_the_story() -> None:
    held = [is_held_out(f"story {i}") for i in range(4000)]
    assert 0.04 < sum(held) / len(held) < 0.06
    assert held == [is_held_out(f"story {i}") for i in range(4000)]


def test_bits_per_byte_of_known_figures() -> None:
    assert bits_per_byte(math.log(2) * 30, tokens=10, bytes_per_token=3.0) == pytest.approx(1.0)
