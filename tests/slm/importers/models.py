"""Small models of other libraries with random weights, for the tests of `slmx import`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer as HFTokenizer
from torch import Tensor, nn

hugging_face: Any = transformers  # its classes are not typed
END = "<|endoftext|>"
CONTEXT = 40


def gpt2(vocab_size: int, **changes: object) -> nn.Module:
    """A GPT-2 of transformers."""
    settings = {"n_positions": CONTEXT, "n_embd": 32, "n_layer": 2, "n_head": 4}
    return _made(hugging_face.GPT2LMHeadModel, hugging_face.GPT2Config, vocab_size, settings | changes)


def gpt_neo(vocab_size: int, **changes: object) -> nn.Module:
    """A GPT-Neo of transformers with the heads of TinyStories-1M: 4 channels each."""
    settings = {
        "max_position_embeddings": CONTEXT,
        "hidden_size": 64,
        "num_layers": 4,
        "num_heads": 16,
        "attention_types": [[["global", "local"], 2]],
        "window_size": 7,
    }
    return _made(hugging_face.GPTNeoForCausalLM, hugging_face.GPTNeoConfig, vocab_size, settings | changes)


def llama(vocab_size: int, **changes: object) -> nn.Module:
    """A Llama of transformers with grouped heads."""
    settings = {
        "max_position_embeddings": CONTEXT,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    return _made(hugging_face.LlamaForCausalLM, hugging_face.LlamaConfig, vocab_size, settings | changes)


def _made(model: Callable[..., Any], config: Callable[..., Any], vocab_size: int, settings: object) -> nn.Module:
    assert isinstance(settings, dict)
    torch.manual_seed(0)
    # transformers' fast attention ignores the settings that scale GPT-2's scores, so the reference is its plain one.
    made: nn.Module = model(
        config(vocab_size=vocab_size, bos_token_id=0, eos_token_id=0, attn_implementation="eager", **settings)
    ).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return made


def save(model: nn.Module, tokenizer: HFTokenizer, folder: Path) -> Path:
    """Saves a model with its tokenizer as a user of transformers would; returns the folder."""
    model.save_pretrained(folder)  # type: ignore[operator]
    fast = hugging_face.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, bos_token=END)
    fast.save_pretrained(folder)
    return folder


@torch.inference_mode()
def logits(model: nn.Module, ids: list[int], rows: list[int]) -> Tensor:
    """Returns the logits of a model of transformers for slmx ids, in the order of slmx ids."""
    found: Tensor = model(torch.tensor([[rows[i] for i in ids]])).logits[0][:, rows]
    return found
