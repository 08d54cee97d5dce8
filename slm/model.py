"""The GPT in PyTorch. Its shape is that of GPT-2, and its parameters have the names of nanoGPT's."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slm.presets import GPTConfig


class KVCache:
    """The keys and values of every layer, float32 [batch, heads, capacity, head_dim].

    Args:
        config: The shape of the model.
        batch_size: The number of sequences.
        device: Where the tensors are.
        capacity: The number of positions, or None for the model's context.

    Attributes:
        length: The number of positions that are filled. A smaller value makes the cache forget later positions.
    """

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
        """Stores keys and values of new positions [batch, heads, new, head_dim] after the first `length` ones.

        It does not change `length`, which counts for all layers.

        Returns:
            The keys and values of all positions so far.
        """
        end = self.length + key.shape[2]
        self.keys[layer][:, :, self.length : end] = key
        self.values[layer][:, :, self.length : end] = value
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]


class CausalSelfAttention(nn.Module):
    """Multi-head attention in which a position attends to itself and to the positions before it."""

    def __init__(self, config: GPTConfig, layer: int, dropout: float) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.layer = layer
        self.dropout = dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.resid_dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """Returns float [batch, sequence, n_embd] for x of the same shape."""
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
    """The feed-forward part of a block, four times as wide inside, with the tanh form of GELU as in GPT-2."""

    def __init__(self, config: GPTConfig, dropout: float) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.gelu = nn.GELU(approximate="tanh")
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Returns float [batch, sequence, n_embd] for x of the same shape."""
        y: Tensor = self.dropout(self.c_proj(self.gelu(self.c_fc(x))))
        return y


class Block(nn.Module):
    """Attention and MLP, each after a LayerNorm and with a residual connection."""

    def __init__(self, config: GPTConfig, layer: int, dropout: float) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd)
        self.attn = CausalSelfAttention(config, layer, dropout)
        self.ln_2 = nn.LayerNorm(config.n_embd)
        self.mlp = MLP(config, dropout)

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """Returns float [batch, sequence, n_embd] for x of the same shape."""
        x = x + self.attn(self.ln_1(x), cache)
        y: Tensor = x + self.mlp(self.ln_2(x))
        return y


class GPT(nn.Module):
    """A GPT with the shape of GPT-2 (Radford et al., 2019).

    It has learned positions and a LayerNorm before each part, and its head is the token table.

    Args:
        config: The shape.
        dropout: The probability of dropout in training, at all places where GPT-2 has one.
    """

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
        """Sets the weights as GPT-2 does: N(0, 0.02), divided by sqrt(2 layers) before a residual, and zero biases."""
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * self.config.n_layer))
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, input_ids: Tensor, cache: KVCache | None = None, last_only: bool = False) -> Tensor:
        """Computes the logits of the next token at each position.

        Args:
            input_ids: Ids int64 [batch, sequence]. With a cache they follow the positions that it holds. The cache's
                length and `sequence` together must be at most `block_size`.
            cache: Keys and values of the positions before, or None. It grows by `sequence`.
            last_only: Whether to compute the logits of the last position only.

        Returns:
            Logits float [batch, sequence, vocab], or [batch, 1, vocab] of the last position.
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
    """Continues a prompt with the most likely id at each step.

    Args:
        model: The model, on the CPU.
        prompt: The ids to continue, at least one.
        max_tokens: The number of ids to add.
        use_cache: Whether to keep keys and values. If not, each step computes the whole sequence again, which is the
            reference that the cache must match.

    Returns:
        The new ids.
    """
    ids = list(prompt)
    cache = KVCache(model.config) if use_cache else None
    step = torch.tensor([ids])
    for _ in range(max_tokens):
        ids.append(int(model(step, cache)[0, -1].argmax()))
        step = torch.tensor([ids[-1:]]) if use_cache else torch.tensor([ids])
    return ids[len(prompt) :]
