"""Samples stories from the PyTorch model, to read during training and to compare variants of a model."""

from __future__ import annotations

import torch

from slm.model import GPT, KVCache
from slm.tokenizers.tokenizer import Tokenizer

MOST_TOKENS = 256


@torch.inference_mode()
def sample_stories(model: GPT, tokenizer: Tokenizer, seed: int, count: int = 64, temperature: float = 1.0) -> list[str]:
    """Samples stories from a model, all in one batch. A story is cut at `MOST_TOKENS`, or at the context.

    Args:
        model: The model. Its mode, training or evaluation, is the same afterwards.
        tokenizer: The tokenizer of the model.
        seed: Decides the stories, on one device.
        count: The number of stories.
        temperature: Divides the logits. At 1 the stories follow the model's own distribution.
    """
    device = model.wte.weight.device
    random = torch.Generator(device).manual_seed(seed)
    was_training = model.training
    model.eval()
    length = min(MOST_TOKENS, model.config.block_size)
    cache = KVCache(model.config, count, device, length)
    ids = torch.full((count, 1), tokenizer.begin, device=device)
    for _ in range(length - 1):
        probabilities = (model(ids[:, -1:], cache)[:, -1].float() / temperature).softmax(-1)
        ids = torch.cat((ids, torch.multinomial(probabilities, 1, generator=random)), 1)
    model.train(was_training)
    stories = []
    for row in ids[:, 1:].tolist():
        end = row.index(tokenizer.end_of_text) if tokenizer.end_of_text in row else len(row)
        stories.append(tokenizer.decode(row[:end]))
    return stories
