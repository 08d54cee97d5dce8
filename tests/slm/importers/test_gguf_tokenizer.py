"""The tokenizer in the metadata of a GGUF file is the one that its Hugging Face folder has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slm.console.errors import SlmxError
from slm.importers.gguf_tokenizer import PRE_TOKENIZERS, TokenType, gguf_tokenizer
from slm.importers.hugging_face_tokenizer import import_tokenizer
from slm.tokenizers.tokenizer_json import byte_name
from tests.slm.importers.trained import NAMES, SPECIALS, config_of, folder_of, made

BYTE_NAMES = [byte_name(byte) for byte in range(256)]
LLAMA = "sentencepiece always"


def metadata_of(kind: str) -> dict[str, Any]:
    """What llama.cpp's converter writes for a tokenizer."""
    model = json.loads(made(kind))["model"]
    vocab = sorted(model["vocab"], key=model["vocab"].__getitem__)
    types = [TokenType.CONTROL if token in (*SPECIALS, *NAMES) else TokenType.NORMAL for token in vocab]
    values: dict[str, Any] = {"tokens": vocab}
    if kind.startswith("sentencepiece"):
        types[0] = TokenType.UNKNOWN
        types = [TokenType.BYTE if token in BYTE_NAMES else kind for token, kind in zip(vocab, types, strict=True)]
        special = len(NAMES) + 256
        scores = [0.0 if number < special else float(special - number) for number in range(len(vocab))]
        values |= {"model": "llama", "scores": scores, "add_space_prefix": kind.endswith("always")}
    else:
        pre = next(name for name, scheme in PRE_TOKENIZERS.items() if scheme == kind)
        values |= {"model": "gpt2", "pre": pre, "merges": [" ".join(pair) for pair in model["merges"]]}
    ends = {key: number for key, number in config_of(kind).items() if number is not None}
    values |= {"token_type": list(map(int, types))} | ends
    return {f"tokenizer.ggml.{key}": value for key, value in values.items()} | {"general.name": "x"}


@pytest.mark.parametrize("kind", ["gpt2", "digits", "cl100k", "qwen2", LLAMA, "sentencepiece never"])
def test_it_is_the_tokenizer_of_the_folder(kind: str, tmp_path: Path) -> None:
    found = gguf_tokenizer(metadata_of(kind), "m.gguf")
    expected = import_tokenizer(folder_of(kind, tmp_path / "a"), config_of(kind))
    assert found.tokenizer == expected.tokenizer
    assert found.rows == expected.rows
    assert found.left_out == expected.left_out
    assert sorted(found.merges) == sorted(expected.merges)


def test_a_space_goes_before_a_text_unless_the_file_says_otherwise() -> None:
    metadata = metadata_of(LLAMA)
    del metadata["tokenizer.ggml.add_space_prefix"]
    assert gguf_tokenizer(metadata, "m.gguf").tokenizer.settings.prefix == "always"


def test_unused_tokens_are_left_out() -> None:
    metadata = metadata_of(LLAMA)
    metadata["tokenizer.ggml.tokens"].append("[PAD1759]")
    metadata["tokenizer.ggml.token_type"].append(int(TokenType.UNUSED))
    metadata["tokenizer.ggml.scores"].append(0.0)
    found = gguf_tokenizer(metadata, "m.gguf")
    assert found.tokenizer == gguf_tokenizer(metadata_of(LLAMA), "m.gguf").tokenizer


@pytest.mark.parametrize(
    ("kind", "key", "value", "said"),
    [
        ("gpt2", "model", "rwkv", "its tokenizer is 'rwkv', and slmx knows gpt2 and llama only"),
        ("gpt2", "model", 5, "model is not a text"),
        ("gpt2", "pre", "falcon", "its pre-tokenizer is 'falcon', and slmx knows gpt-2, smollm, llama-bpe, qwen2 only"),
        ("gpt2", "pre", None, "pre is missing"),
        ("gpt2", "tokens", "abc", "tokens is not a list of values of type str"),
        ("gpt2", "tokens", ["a", 5], "tokens is not a list of values of type str"),
        ("gpt2", "tokens", ["a"], "1 token, 1,500 token types"),
        ("gpt2", "tokens", ["a"] * 1500, "a token is there twice"),
        ("gpt2", "token_type", [4] * 1500, "has the added tokens"),
        ("gpt2", "token_type", [3] * 1500, "of the 256 bytes are not tokens"),
        ("gpt2", "token_type", [True] * 1500, "token_type is not a list of values of type int"),
        ("gpt2", "merges", ["ab"], "the merge 'ab' is not two texts"),
        ("gpt2", "merges", None, "merges is missing"),
        ("gpt2", "eos_token_id", None, "no eos_token_id"),
        ("gpt2", "eos_token_id", 1500, "eos_token_id is not a whole number from 0 to 1499"),
        ("gpt2", "eos_token_id", 400, "eos_token_id is 400, the id of the ordinary token"),
        ("gpt2", "bos_token_id", -1, "bos_token_id is not a whole number"),
        (LLAMA, "scores", [1.0], "1,756 tokens, 1 score"),
        (LLAMA, "scores", [1.0] * 1756, "have one score, so their order is unknown"),
        (LLAMA, "scores", [float("nan")] * 1756, "is no number"),
        (LLAMA, "add_space_prefix", "yes", "add_space_prefix is neither true nor false"),
    ],
)
def test_wrong_metadata_is_one_line(kind: str, key: str, value: object, said: str) -> None:
    metadata = metadata_of(kind) | {f"tokenizer.ggml.{key}": value}
    if value is None:
        del metadata[f"tokenizer.ggml.{key}"]
    with pytest.raises(SlmxError) as caught:
        gguf_tokenizer(metadata, "m.gguf")
    line = str(caught.value)
    assert line.startswith("m.gguf: ")
    assert line.isprintable()
    assert said in line


def test_a_file_of_another_kind_is_one_line() -> None:
    with pytest.raises(SlmxError, match=r"m\.gguf: not a tokenizer that slmx can import \(tokens is missing\)"):
        gguf_tokenizer({"general.name": "x"}, "m.gguf")


def test_a_very_long_token_is_refused() -> None:
    metadata = metadata_of(LLAMA)
    metadata["tokenizer.ggml.tokens"][-1] = "x" * 10**6
    with pytest.raises(SlmxError, match="has more than 500 characters"):
        gguf_tokenizer(metadata, "m.gguf")
