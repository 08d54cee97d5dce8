"""GPT in PyTorch: GPT-2's shape, nanoGPT's names."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slm.presets import GPTConfig


class KVCache:
    """Keys and values of every layer for up to `capacity` positions: [batch, heads, capacity, head_dim]."""

    def __init__(
        self,
        config: GPTConfig,
        batch_size: int = 1,
        device: torch.device | str = "cpu",
        capacity: int | None = None,
    ) -> None:
        shape = (batch_size, config.n_head, capacity or config.block_size, config.head_dim)
        self.keys = [torch.zeros(shape, device=device) for _ in range(config.n_layer)]
        self.values = [torch.zeros(shape, device=device) for _ in range(config.n_layer)]
        self.length = 0

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store new positions [batch, heads, new, head_dim] behind `length`; returns all so far."""
        end = self.length + key.shape[2]
        self.keys[layer][:, :, self.length : end] = key
        self.values[layer][:, :, self.length : end] = value
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]


class CausalSelfAttention(nn.Module):
    """Multi-head attention in which a position sees itself and those before it."""

    def __init__(self, config: GPTConfig, layer: int, dropout: float) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.layer = layer
        self.dropout = dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.resid_dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """x float [batch, sequence, n_embd]; the same shape comes back."""
        batch, sequence, width = x.shape
        q, k, v = (
            part.view(batch, sequence, self.n_head, width // self.n_head).transpose(1, 2)
            for part in self.c_attn(x).split(width, dim=2)
        )
        mask = None
        if cache is not None:
            if sequence > 1 and cache.length:
                total = cache.length + sequence
                mask = torch.ones(sequence, total, dtype=torch.bool, device=x.device).tril(cache.length)
            k, v = cache.append(self.layer, k, v)
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=sequence > 1 and mask is None,
        )
        projected: Tensor = self.c_proj(y.transpose(1, 2).reshape(batch, sequence, width))
        dropped: Tensor = self.resid_dropout(projected)
        return dropped


class MLP(nn.Module):
    """The feed-forward part of a block: four times as wide inside, GPT-2's tanh GELU."""

    def __init__(self, config: GPTConfig, dropout: float) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.gelu = nn.GELU(approximate="tanh")
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x float [batch, sequence, n_embd]; the same shape comes back."""
        y: Tensor = self.dropout(self.c_proj(self.gelu(self.c_fc(x))))
        return y


class Block(nn.Module):
    """Attention and MLP, each behind a LayerNorm and around a residual."""

    def __init__(self, config: GPTConfig, layer: int, dropout: float) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd)
        self.attn = CausalSelfAttention(config, layer, dropout)
        self.ln_2 = nn.LayerNorm(config.n_embd)
        self.mlp = MLP(config, dropout)

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """x float [batch, sequence, n_embd]; the same shape comes back."""
        x = x + self.attn(self.ln_1(x), cache)
        y: Tensor = x + self.mlp(self.ln_2(x))
        return y


class GPT(nn.Module):
    """GPT-2's shape (Radford et al., 2019): learned positions, pre-LayerNorm, head tied to the token table."""

    def __init__(self, config: GPTConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.drop = nn.Dropout(dropout)
        self.h = nn.ModuleList(Block(config, layer, dropout) for layer in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd)
        self._init_weights()

    def _init_weights(self) -> None:
        """GPT-2's start: N(0, 0.02), residual projections narrower by sqrt(2 layers), biases zero."""
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * self.config.n_layer))
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, input_ids: Tensor, cache: KVCache | None = None, last_only: bool = False) -> Tensor:
        """Logits float [batch, sequence, vocab] for ids int64 [batch, sequence], or [batch, 1, vocab] of the last.

        With a cache the ids continue what it holds, and it grows by them; their number and the
        cache's length together must not pass `block_size`.
        """
        past = 0 if cache is None else cache.length
        position_ids = torch.arange(past, past + input_ids.shape[1], device=input_ids.device)
        x = self.drop(self.wte(input_ids) + self.wpe(position_ids))
        for block in self.h:
            x = block(x, cache)
        if cache is not None:
            cache.length += input_ids.shape[1]
        return F.linear(self.ln_f(x[:, -1:] if last_only else x), self.wte.weight)


@torch.inference_mode()
def generate_greedy(model: GPT, prompt: list[int], max_tokens: int, use_cache: bool = True) -> list[int]:
    """The `max_tokens` likeliest ids after a prompt, by the float model with its own KV cache.

    Without the cache every step runs the whole sequence again: the reference that the cache must match.
    """
    ids = list(prompt)
    cache = KVCache(model.config) if use_cache else None
    step = torch.tensor([ids])
    for _ in range(max_tokens):
        ids.append(int(model(step, cache)[0, -1].argmax()))
        step = torch.tensor([ids[-1:]]) if use_cache else torch.tensor([ids])
    return ids[len(prompt) :]
