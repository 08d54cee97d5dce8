"""Bits per byte: the figure that compares models across vocabularies."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from slm.corpus import TokenStream, bits_per_byte
from slm.model import GPT


@torch.inference_mode()
def evaluate(model: GPT, stream: TokenStream, max_windows: int | None = None, batch_size: int = 8) -> float:
    """Bits per byte of a stream read in whole windows side by side, each without memory of the one before."""
    inputs, targets = stream.windows(model.config.block_size)
    inputs, targets = inputs[:max_windows], targets[:max_windows]
    device = model.wte.weight.device
    was_training = model.training
    model.eval()
    nats = 0.0
    for start in range(0, len(inputs), batch_size):
        logits = model(torch.from_numpy(inputs[start : start + batch_size]).to(device))
        expected = torch.from_numpy(targets[start : start + batch_size]).to(device)
        nats += float(F.cross_entropy(logits.flatten(0, 1).float(), expected.flatten(), reduction="sum"))
    model.train(was_training)
    return bits_per_byte(nats, targets.size, stream.bytes_per_token)
