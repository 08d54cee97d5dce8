"""Checkpoints with random weights: for measuring shapes that were never trained, never for stories."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch

from slm.checkpoint import PRETRAINED, save_checkpoint
from slm.model import GPT
from slm.presets import get_preset
from slm.tokenizer import Tokenizer, load_merges, to_unicode

SEED = 0


def untrained_checkpoint(preset: str, folder: Path) -> Path:
    """Write a preset's checkpoint with weights as they are before training, the same every time."""
    config = get_preset(preset).config
    torch.manual_seed(SEED)
    tokenizer, merges = _tokenizer(config.vocab_size)
    record = {"untrained": True, "plan": {"seed": SEED}}
    save_checkpoint(folder, preset, GPT(config).eval(), tokenizer, merges, record)
    return folder


def _tokenizer(vocab_size: int) -> tuple[Tokenizer, list[tuple[str, str]]]:
    """The tokenizer of the shipped nano, filled up to a size with pairs of words that no text can reach.

    Both words begin with a space, and text is split before every space, so they never meet.
    """
    base = Tokenizer.load(PRETRAINED / "nano")
    ranks, merges = dict(base.ranks), load_merges(PRETRAINED / "nano")
    words = [token for token in ranks if token.startswith(b" ") and len(token) > 2]
    for left, right in itertools.product(words, words):
        if len(ranks) == vocab_size - 1:
            break
        if left + right not in ranks:
            ranks[left + right] = len(ranks)
            merges.append((to_unicode(left), to_unicode(right)))
    return Tokenizer(ranks), merges
