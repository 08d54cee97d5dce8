"""Small shapes of every architecture that slmx computes, for tests."""

from __future__ import annotations

from dataclasses import replace

from slm.presets import GPTConfig, as_architecture

_GPT2 = GPTConfig(block_size=40, vocab_size=301, n_layer=3, n_head=4, n_embd=64)
LLAMA = as_architecture(_GPT2, "llama")
ARCHITECTURES = {
    "gpt2": _GPT2,
    "gpt2 of other options": replace(_GPT2, n_inner=96, activation="relu", norm_eps=1e-3, bias=False, tied=False),
    "gpt2 with exact gelu": replace(_GPT2, activation="gelu"),
    "neo": replace(_GPT2, head_size=8, windows=(0, 5, 0)),
    "llama": LLAMA,
    "llama with grouped heads": replace(
        LLAMA, n_kv_head=2, head_size=32, n_inner=96, norm_eps=1e-6, tied=False, rope_theta=5e4
    ),
    "gated gelu with biases": replace(_GPT2, gated=True, n_inner=32, windows=(3, 0, 7)),
}
