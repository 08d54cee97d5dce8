"""Hugging Face folders of small GPT-2 models, as transformers writes them, for the tests of `slmx import`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import models, pre_tokenizers, trainers

from slm.importers.hugging_face_tokenizer import import_tokenizer

VOCABULARY = 400
END = "<|endoftext|>"
Model = transformers.GPT2LMHeadModel
hugging_face: Any = transformers  # its classes are not typed


def made_tokenizer(stories: list[str], specials: list[str]) -> HFTokenizer:
    """A byte-level BPE as `tokenizers` trains it: special tokens get the first ids."""
    tokenizer = HFTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(stories, trainer)
    return tokenizer


def made_model(folder: Path, tokenizer: HFTokenizer, **changes: int) -> Model:
    """A small GPT-2 with random weights, saved as a user would."""
    torch.manual_seed(0)
    settings = {
        "vocab_size": VOCABULARY,
        "n_positions": 48,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 2,
        "bos_token_id": tokenizer.token_to_id(END),
        "eos_token_id": tokenizer.token_to_id(END),
    }
    model: Model = hugging_face.GPT2LMHeadModel(hugging_face.GPT2Config(**settings | changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    hugging_face.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, bos_token=END).save_pretrained(
        folder
    )
    return model


def rows_of(folder: Path) -> list[int]:
    """For each slmx id, the id of the same token in the folder's own tokenizer."""
    return import_tokenizer(folder, json.loads((folder / "config.json").read_text("utf-8"))).rows


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the content of a JSON file."""
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")
