"""The reference for a cache: the whole sequence is computed again at each step."""

from __future__ import annotations

import torch

from slm.model import GPT


@torch.inference_mode()
def greedy_without_cache(model: GPT, prompt: list[int], max_tokens: int) -> list[int]:
    ids = list(prompt)
    for _ in range(max_tokens):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]
