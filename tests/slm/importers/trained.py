"""Tokenizers that `tokenizers` trains, as folders of Hugging Face, for the tests of the importers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from slm.tokenizer_json import byte_name
from slm.tokenizer_settings import SCHEMES

END = "<|endoftext|>"
SIZE = 1500
NAMES = ["<unk>", "<s>", "</s>"]
MARK = "\u2581"


def byte_level(scheme: str, texts: Iterable[str], size: int = SIZE) -> tokenizers.Tokenizer:
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
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[END, "<|im_start|>"], initial_alphabet=alphabet)
    trainee.train_from_iterator(texts, trainer)
    return trainee


def sentencepiece(
    texts: Iterable[str], prefix: str = "always", by_words: bool = True, every_merge: bool = True, size: int = SIZE
) -> tokenizers.Tokenizer:
    """A BPE with byte fallback as in Llama-2.

    Args:
        texts: What it learns from.
        prefix: As in `TokenizerSettings`.
        by_words: Whether it learns from words. Otherwise its tokens can span several words.
        every_merge: Whether it has every merge that leads to a token, as Llama-2's does. Otherwise one for each token.
        size: The number of tokens, besides the bytes.
    """
    trainee = tokenizers.Tokenizer(models.BPE())
    trainee.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always") if by_words else None
    trainee.normalizer = None if by_words else normalizers.Replace(" ", MARK)
    trainee.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, special_tokens=NAMES))
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


def saved(tokenizer: tokenizers.Tokenizer, folder: Path) -> Path:
    """The folder, with the tokenizer in it."""
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
