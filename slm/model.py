"""The GPT in PyTorch. The names are those of nanoGPT, and the options are those of GPT-Neo and Llama."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slm.presets import GPTConfig

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
}
Rotation = tuple[Tensor, Tensor]


class KVCache:
    """The keys and values of every layer, float32 [batch, kv_heads, capacity, head_dim].

    Args:
        config: The shape of the model.
        batch_size: The number of sequences.
        device: Where the tensors are.
        capacity: The number of positions, or None for the model's context.

    Attributes:
        length: The number of positions that are filled. A smaller value makes the cache forget later positions.
        traced: Whether PyTorch records the model's operations, to run them with other lengths. Then the model must not
            choose its operations by the length.
    """

    traced = False

    def __init__(
        self,
        config: GPTConfig,
        batch_size: int = 1,
        device: torch.device | str = "cpu",
        capacity: int | None = None,
    ) -> None:
        shape = (batch_size, config.kv_heads, capacity or config.block_size, config.head_dim)
        self.keys = [torch.zeros(shape, device=device) for _ in range(config.n_layer)]
        self.values = [torch.zeros(shape, device=device) for _ in range(config.n_layer)]
        self.length = 0

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Stores keys and values of new positions [batch, kv_heads, new, head_dim] after the first `length` ones.

        It does not change `length`, which counts for all layers.

        Returns:
            The keys and values of all positions so far.
        """
        end = self.length + key.shape[2]
        self.keys[layer][:, :, self.length : end] = key
        self.values[layer][:, :, self.length : end] = value
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]


def rotary_table(config: GPTConfig, positions: Tensor) -> Rotation:
    """Returns cosine and sine, float32 [positions, head_dim / 2] (Su et al., 2021, arXiv:2104.09864)."""
    channels = torch.arange(0, config.head_dim, 2, device=positions.device, dtype=torch.float32)
    angles = torch.outer(positions.float(), 1.0 / config.rope_theta ** (channels / config.head_dim))
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotates the channel pairs (i, i + head_dim / 2) of x [batch, heads, sequence, head_dim], as Llama does."""
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).type_as(x)


def attention_mask(positions: Tensor, total: int, window: int) -> Tensor:
    """Returns a mask bool [positions, total]: true where a position attends to one of the first `total` positions.

    Args:
        positions: The new positions, int64 [positions].
        total: The number of positions up to the last new one.
        window: The number of last positions that a position attends to; 0 means all.
    """
    rows, columns = positions.unsqueeze(1), torch.arange(total, device=positions.device)
    return (columns <= rows) & (columns > rows - window) if window else columns <= rows


def _dropout(probability: float) -> nn.Module:
    return nn.Dropout(probability) if probability else nn.Identity()


class CausalSelfAttention(nn.Module):
    """Multi-head attention in which a position attends to itself and to positions before it."""

    def __init__(self, config: GPTConfig, layer: int, dropout: float) -> None:
        super().__init__()
        self.heads = (config.n_head, config.kv_heads, config.kv_heads)
        self.head_dim = config.head_dim
        self.layer = layer
        self.dropout = dropout
        self.c_attn = nn.Linear(config.n_embd, sum(self.heads) * config.head_dim, bias=config.bias)
        self.c_proj = nn.Linear(config.n_head * config.head_dim, config.n_embd, bias=config.bias)
        self.resid_dropout = _dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None, rotation: Rotation | None, cache: KVCache | None) -> Tensor:
        """Returns float [batch, sequence, n_embd] for x of the same shape. A mask of None is the causal one."""
        batch, sequence = x.shape[:2]
        qkv = self.c_attn(x).view(batch, sequence, sum(self.heads), self.head_dim).transpose(1, 2)
        q, k, v = qkv.split(self.heads, dim=1)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        if cache is not None:
            k, v = cache.append(self.layer, k, v)
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None and sequence > 1,
            enable_gqa=self.heads[0] != self.heads[1],
        )
        projected: Tensor = self.c_proj(y.transpose(1, 2).reshape(batch, sequence, self.heads[0] * self.head_dim))
        dropped: Tensor = self.resid_dropout(projected)
        return dropped


class MLP(nn.Module):
    """The feed-forward part of a block. If it is gated, `c_fc` computes the gate and then the values that it gates."""

    def __init__(self, config: GPTConfig, dropout: float) -> None:
        super().__init__()
        self.gated = config.gated
        self.activation = ACTIVATIONS[config.activation]
        self.c_fc = nn.Linear(config.n_embd, config.inner * (2 if config.gated else 1), bias=config.bias)
        self.c_proj = nn.Linear(config.inner, config.n_embd, bias=config.bias)
        self.dropout = _dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Returns float [batch, sequence, n_embd] for x of the same shape."""
        hidden = self.c_fc(x)
        if self.gated:
            gate, hidden = hidden.chunk(2, dim=-1)
            hidden = self.activation(gate) * hidden
        else:
            hidden = self.activation(hidden)
        y: Tensor = self.dropout(self.c_proj(hidden))
        return y


def _norm(config: GPTConfig) -> nn.LayerNorm | nn.RMSNorm:
    if config.norm == "rmsnorm":
        return nn.RMSNorm(config.n_embd, config.norm_eps)
    return nn.LayerNorm(config.n_embd, config.norm_eps, bias=config.bias)


class Block(nn.Module):
    """Attention and MLP, each after a norm and with a residual connection."""

    def __init__(self, config: GPTConfig, layer: int, dropout: float) -> None:
        super().__init__()
        self.ln_1 = _norm(config)
        self.attn = CausalSelfAttention(config, layer, dropout)
        self.ln_2 = _norm(config)
        self.mlp = MLP(config, dropout)

    def forward(self, x: Tensor, mask: Tensor | None, rotation: Rotation | None, cache: KVCache | None) -> Tensor:
        """Returns float [batch, sequence, n_embd] for x of the same shape. A mask of None is the causal one."""
        x = x + self.attn(self.ln_1(x), mask, rotation, cache)
        y: Tensor = x + self.mlp(self.ln_2(x))
        return y


class GPT(nn.Module):
    """A decoder with a norm before each part: a GPT-2 (Radford et al., 2019), or what `GPTConfig` makes of it.

    Args:
        config: The shape.
        dropout: The probability of dropout in training, at all places where GPT-2 has one.
    """

    def __init__(self, config: GPTConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = None if config.rope_theta else nn.Embedding(config.block_size, config.n_embd)
        self.drop = _dropout(dropout)
        self.h = nn.ModuleList(Block(config, layer, dropout) for layer in range(config.n_layer))
        self.ln_f = _norm(config)
        self.lm_head = None if config.tied else nn.Linear(config.n_embd, config.vocab_size, bias=False)
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
        config, past, sequence = self.config, 0 if cache is None else cache.length, input_ids.shape[1]
        total = past + sequence
        positions = torch.arange(past, total, device=input_ids.device)
        x = self.wte(input_ids)
        if self.wpe is not None:
            x = x + self.wpe(positions)
        x = self.drop(x)
        rotation = rotary_table(config, positions) if config.rope_theta else None
        masks: dict[int, Tensor | None] = {}
        for window in {*config.windows} or {0}:
            traced = cache is not None and cache.traced
            is_plain = not traced and (past == 0 or sequence == 1) and not (window and total > window)
            masks[window] = None if is_plain else attention_mask(positions, total, window)
        for layer, block in enumerate(self.h):
            x = block(x, masks[config.window(layer)], rotation, cache)
        if cache is not None:
            cache.length = total
        head = self.wte.weight if self.lm_head is None else self.lm_head.weight
        return F.linear(self.ln_f(x[:, -1:] if last_only else x), head)


@torch.inference_mode()
def generate_greedy(model: GPT, prompt: list[int], max_tokens: int) -> list[int]:
    """Continues a prompt with the most likely id at each step.

    Args:
        model: The model, on the CPU.
        prompt: The ids to continue, at least one.
        max_tokens: The number of ids to add.

    Returns:
        The new ids.
    """
    ids = list(prompt)
    cache = KVCache(model.config)
    step = torch.tensor([ids])
    for _ in range(max_tokens):
        ids.append(int(model(step, cache)[0, -1].argmax()))
        step = torch.tensor([ids[-1:]])
    return ids[len(prompt) :]
