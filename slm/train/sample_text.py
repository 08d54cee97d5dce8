"""Stories drawn from the float model itself, to look at while it trains and to judge its variants on."""

from __future__ import annotations

import torch

from slm.model import GPT, KVCache
from slm.tokenizer import Tokenizer


@torch.inference_mode()
def sample_stories(
    model: GPT, tokenizer: Tokenizer, seed: int, count: int = 64, max_tokens: int = 256, temperature: float = 1.0
) -> list[str]:
    """`count` stories, each cut at its end or at `max_tokens`; at temperature 1 the model's own distribution."""
    device = model.wte.weight.device
    random = torch.Generator(device).manual_seed(seed)
    was_training = model.training
    model.eval()
    length = min(max_tokens, model.config.block_size)
    cache = KVCache(model.config, count, device, length)
    ids = torch.full((count, 1), tokenizer.end_of_text, device=device)
    for _ in range(length - 1):
        probabilities = (model(ids[:, -1:], cache)[:, -1].float() / temperature).softmax(-1)
        ids = torch.cat((ids, torch.multinomial(probabilities, 1, generator=random)), 1)
    model.train(was_training)
    stories = []
    for row in ids[:, 1:].tolist():
        end = row.index(tokenizer.end_of_text) if tokenizer.end_of_text in row else len(row)
        stories.append(tokenizer.decode(row[:end]))
    return stories
