"""A tokenizer.bin of llama2.c becomes the tokenizer that it was made from."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm.console.errors import SlmxError
from slm.importers.hugging_face_tokenizer import import_tokenizer
from slm.importers.llama2c_tokenizer import llama2c_tokenizer
from tests.slm.importers.strings import made_strings
from tests.slm.importers.trained import config_of, folder_of, made

KIND = "sentencepiece always"


def entries() -> list[tuple[float, bytes]]:
    """The scores and the tokens, as llama2.c's tokenizer.py writes them."""
    model = json.loads(made(KIND))["model"]
    vocab = sorted(model["vocab"], key=model["vocab"].__getitem__)
    spelled = ["<unk>", "\n<s>\n", "\n</s>\n", *(token.replace("\u2581", " ") for token in vocab[3:])]
    return [(0.0 if number < 259 else 259.0 - number, token.encode()) for number, token in enumerate(spelled)]


def write(path: Path, tokens: Sequence[tuple[float, bytes]]) -> Path:
    content = struct.pack("<i", max(len(token) for _, token in tokens))
    path.write_bytes(content + b"".join(struct.pack("<fi", score, len(token)) + token for score, token in tokens))
    return path


def test_it_is_the_tokenizer_that_it_was_made_from(tmp_path: Path) -> None:
    found = llama2c_tokenizer(write(tmp_path / "tokenizer.bin", entries()))
    expected = import_tokenizer(folder_of(KIND, tmp_path / "a"), config_of(KIND))
    assert found.tokenizer.tokens == expected.tokenizer.tokens
    assert found.rows[:-1] == expected.rows[:-2]
    for string in made_strings(500, seed=4):
        assert found.tokenizer.encode(string) == expected.tokenizer.encode(string)


def test_a_story_begins_and_ends_with_one_token(tmp_path: Path) -> None:
    found = llama2c_tokenizer(write(tmp_path / "tokenizer.bin", entries()))
    assert found.tokenizer.begin == found.tokenizer.end_of_text
    assert found.rows[found.tokenizer.begin] == 1
    assert list(found.tokenizer.specials) == ["<s>"]
    assert found.left_out == ["<unk>", "</s>"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({5: (0.0, b"x")}, "its tokens 3 to 258 are not the bytes"),
        ({300: (0.0, b"\xff")}, "not a tokenizer.bin"),
        ({300: (0.0, entries()[301][1])}, "a token is there twice"),
        ({300: (0.0, b"")}, "token 300 has 0 bytes"),
        ({1000: (-1000.0, b"the dog"), 1001: (-1000.0, b"the cat")}, "have one score"),
        ({1000: (float("inf"), b"the dog")}, "the score of 'the\\u2581dog' is no number"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, changes: dict[int, tuple[float, bytes]], said: str) -> None:
    tokens = [changes.get(number, entry) for number, entry in enumerate(entries())]
    path = write(tmp_path / "tokenizer.bin", tokens)
    with pytest.raises(SlmxError) as caught:
        llama2c_tokenizer(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


@pytest.mark.parametrize("kept", [0, 3, 4, 10, 100, 5000])
def test_a_file_that_is_cut_off_is_one_line(tmp_path: Path, kept: int) -> None:
    path = write(tmp_path / "tokenizer.bin", entries())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(SlmxError, match=r"not a tokenizer\.bin of llama2\.c|in another way|missing"):
        llama2c_tokenizer(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SlmxError, match=r"tokenizer\.bin: cannot read"):
        llama2c_tokenizer(tmp_path / "tokenizer.bin")


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_one_line(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.bin"
    path.write_bytes(content)
    with pytest.raises(SlmxError, match=r"^[ -~]*$"):
        llama2c_tokenizer(path)
