"""Tokenizers that `tokenizers` trains, as folders of Hugging Face, for the tests of the importers."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from slm.tokenizers.settings import PREFIXES, SCHEMES
from slm.tokenizers.tokenizer_json import byte_name
from tests.conftest import generate_stories
from tests.slm.importers.strings import made_strings

# The kinds of tokenizers, and the special tokens in the order of their ids.
END = "<|endoftext|>"
SPECIALS = [END, "<|im_start|>"]
SIZE = 1500
NAMES = ["<unk>", "<s>", "</s>"]
MARK = "\u2581"


def byte_level(scheme: str) -> tokenizers.Tokenizer:
    """A byte-level BPE whose steps are those of GPT-2 (gpt2), SmolLM2 (digits), Llama-3 (cl100k) or Qwen2 (qwen2)."""
    trainee = tokenizers.Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if scheme == "digits":
        trainee.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), level])
    elif scheme != "gpt2":
        pattern = tokenizers.Regex(SCHEMES[scheme].pattern)
        split = pre_tokenizers.Split(pattern, behavior="isolated", invert=False)
        level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        trainee.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    else:
        trainee.pre_tokenizer = level
    if scheme == "qwen2":
        trainee.normalizer = normalizers.NFC()
    trainee.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    trainee.train_from_iterator(texts(), trainer)
    return trainee


def sentencepiece(prefix: str = "always", by_words: bool = True, every_merge: bool = True) -> tokenizers.Tokenizer:
    """A BPE with byte fallback as in Llama-2.

    Args:
        prefix: As in `TokenizerSettings`.
        by_words: Whether it learns from words. Otherwise its tokens can span several words.
        every_merge: Whether it has every merge that leads to a token, as Llama-2's does. Otherwise one for each token.
    """
    trainee = tokenizers.Tokenizer(models.BPE())
    trainee.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always") if by_words else None
    trainee.normalizer = None if by_words else normalizers.Replace(" ", MARK)
    trainee.train_from_iterator(
        texts(), trainers.BpeTrainer(vocab_size=SIZE, special_tokens=NAMES, show_progress=False)
    )
    learned = json.loads(trainee.to_str())["model"]
    ordered = sorted(learned["vocab"], key=learned["vocab"].__getitem__)
    vocab = [*NAMES, *map(byte_name, range(256)), *ordered[len(NAMES) :]]
    ids = {token: number for number, token in enumerate(vocab)}
    merges = learned["merges"]
    if every_merge:
        merges = [
            [token[:cut], token[cut:]]
            for token in dict.fromkeys(left + right for left, right in merges)
            for cut in range(1, len(token))
            if token[:cut] in ids and token[cut:] in ids
        ]
    pairs = [(left, right) for left, right in merges]
    made = tokenizers.Tokenizer(
        models.BPE(vocab=ids, merges=pairs, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    )
    made.add_special_tokens([tokenizers.AddedToken(name, normalized=False, special=True) for name in NAMES])
    steps: list[Any] = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix == "first":
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        prepend = [normalizers.Prepend(MARK)] if prefix == "always" else []
        made.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", MARK)])
    made.decoder = decoders.Sequence(steps if prefix == "never" else [*steps, decoders.Strip(" ", 1, 0)])
    return made


@functools.cache
def texts() -> list[str]:
    """Stories and strings to learn from, without the names of special tokens."""
    strings = [string for string in made_strings(3000, seed=1) if not re.search("<0x|<s>|</s>|<unk>", string)]
    return generate_stories(300) + strings


KINDS: dict[str, Callable[[], tokenizers.Tokenizer]] = {
    **{scheme: partial(byte_level, scheme) for scheme in ("gpt2", "digits", "cl100k", "qwen2")},
    **{f"sentencepiece {prefix}": partial(sentencepiece, prefix) for prefix in PREFIXES},
    "sentencepiece of phrases": partial(sentencepiece, by_words=False),
    "sentencepiece of single merges": partial(sentencepiece, every_merge=False),
}


@functools.cache
def made(kind: str) -> str:
    """The tokenizer.json of a kind."""
    return str(KINDS[kind]().to_str())


def folder_of(kind: str, folder: Path) -> Path:
    """The folder, with the tokenizer of a kind in it."""
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(made(kind), "utf-8")
    return folder


def config_of(kind: str) -> dict[str, object]:
    """What a config.json says about the tokens that begin and end a text."""
    if kind.startswith("sentencepiece"):
        return {"bos_token_id": NAMES.index("<s>"), "eos_token_id": NAMES.index("</s>")}
    return {"bos_token_id": None, "eos_token_id": SPECIALS.index(END)}


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The folder, after a change of its tokenizer.json."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")
    return folder
