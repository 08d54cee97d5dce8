"""Streams of tokens, in memory and in shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm.console.errors import SlmxError
from slm.data.corpus import Shards, TokenStream, encode_stories
from slm.tokenizers.tokenizer import Tokenizer, train_tokenizer


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 200), st.integers(1, 20), st.none() | st.integers(1, 20))
def test_windows_lie_side_by_side_and_targets_are_shifted_by_one(length: int, block: int, limit: int | None) -> None:
    stream = TokenStream(np.arange(length, dtype=np.uint16), text_bytes=length, stories=1)
    if (length - 1) // block < 1:
        with pytest.raises(SlmxError, match="shorter than one context"):
            stream.windows(block, limit)
        return
    inputs, targets = stream.windows(block, limit)
    whole = (length - 1) // block
    assert inputs.shape == targets.shape == (whole if limit is None else min(whole, limit), block)
    np.testing.assert_array_equal(inputs.ravel(), np.arange(inputs.size))
    np.testing.assert_array_equal(targets, inputs + 1)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 9), max_size=6), st.integers(-30, 60), st.integers(-30, 60))
def test_shards_are_sliced_as_one_array(lengths: list[int], start: int, stop: int) -> None:
    whole = np.arange(sum(lengths), dtype=np.uint16)
    shards = Shards(np.split(whole, np.cumsum(lengths)[:-1]) if lengths else [])
    assert len(shards) == len(whole)
    for wanted in (slice(start, stop), slice(None, stop), slice(start, None), slice(None)):
        found = shards[wanted]
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found, whole[wanted])


def test_shards_are_read_in_a_row() -> None:
    with pytest.raises(ValueError, match="contiguous"):
        Shards([np.zeros(4, np.uint16)])[::2]


def test_every_story_begins_with_end_of_text_and_bytes_are_its_own(tiny_checkpoint: Path) -> None:
    tokenizer = Tokenizer.load(tiny_checkpoint)
    stream = encode_stories(["Ada é", "Bo"], tokenizer)
    first, second = tokenizer.encode("Ada é"), tokenizer.encode("Bo")
    assert stream.ids[:].tolist() == [tokenizer.end_of_text, *first, tokenizer.end_of_text, *second]
    assert stream.text_bytes == len("Ada é".encode()) + 2
    assert stream.bytes_per_token == stream.text_bytes / len(stream.ids)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=40), max_size=8))
def test_a_stream_holds_the_stories_and_their_bytes(texts: list[str]) -> None:
    tokenizer, _ = train_tokenizer(texts, 300)
    stream = encode_stories(texts, tokenizer)
    ids = stream.ids[:]
    pieces = np.split(ids, np.flatnonzero(ids == tokenizer.end_of_text))[1:]
    assert [tokenizer.decode(piece.tolist()) for piece in pieces] == texts
    assert stream.stories == len(texts)
    assert stream.text_bytes == sum(len(text.encode()) for text in texts)


def test_ids_have_16_bits_if_the_vocabulary_fits() -> None:
    tokens = [*(bytes([i]) for i in range(256)), *(bytes([i >> 8, i & 255]) for i in range(65536 - 256))]
    for kept, kind in ((tokens[:-1], np.uint16), (tokens, np.uint32)):
        ids = encode_stories(["a"], Tokenizer(kept)).ids[:]
        assert ids.dtype == kind
        assert ids.tolist() == [len(kept), ord("a")]
