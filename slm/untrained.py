"""Checkpoints with random weights, to measure the speed of shapes that were not trained. They cannot write stories."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch

from slm.checkpoint import save_checkpoint
from slm.folder_kind import PRETRAINED
from slm.model import GPT
from slm.presets import get_preset
from slm.storage.atomic import atomic_folder
from slm.tokenizers.tokenizer import Tokenizer
from slm.tokenizers.tokenizer_json import load_merges, to_unicode

SEED = 0


def checkpoint_of(preset: str, folder: Path) -> Path:
    """Returns the checkpoint that ships for a preset, or else one with random weights.

    Args:
        preset: The preset.
        folder: Where the one with random weights is, or is written if it is missing.

    Raises:
        SlmxError: The preset is unknown, or the folder cannot be written.
    """
    shipped = PRETRAINED / preset
    return shipped if shipped.is_dir() else random_checkpoint(preset, folder)


def random_checkpoint(preset: str, folder: Path) -> Path:
    """Returns a checkpoint with random weights, which is written if it is missing; errors as in `checkpoint_of`."""
    if not folder.is_dir():
        with atomic_folder(folder) as fresh:
            untrained_checkpoint(preset, fresh)
    return folder


def untrained_checkpoint(preset: str, folder: Path) -> Path:
    """Writes a checkpoint of a preset with the weights before training. They are the same in every run.

    Returns:
        `folder`, which must be an empty folder.

    Raises:
        SlmxError: The preset is unknown.
    """
    config = get_preset(preset).config
    torch.manual_seed(SEED)
    tokenizer, merges = _tokenizer(config.vocab_size)
    record = {"untrained": True, "plan": {"seed": SEED}}
    save_checkpoint(folder, preset, GPT(config).eval(), tokenizer, merges, record)
    return folder


def _tokenizer(vocab_size: int) -> tuple[Tokenizer, list[tuple[str, str]]]:
    """Returns the tokenizer of the shipped nano, extended to `vocab_size` with tokens that no text contains.

    Each added token is a pair of words that both begin with a space. Text is split before every space, so no piece of
    text contains such a pair.
    """
    base = Tokenizer.load(PRETRAINED / "nano")
    tokens, merges = dict.fromkeys(base.tokens), load_merges(PRETRAINED / "nano")
    words = [token for token in tokens if token.startswith(b" ") and len(token) > 2]
    for left, right in itertools.product(words, words):
        if len(tokens) == vocab_size - 1:
            break
        if left + right not in tokens:
            tokens[left + right] = None
            merges.append((to_unicode(left), to_unicode(right)))
    return Tokenizer(tokens), merges
