"""The GPT: cached and uncached agree, and no position sees the future."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from slm.checkpoint import load_checkpoint
from slm.model import GPT, CausalSelfAttention, KVCache, generate_greedy
from slm.presets import PRESETS, GPTConfig, Preset
from tests.greedy import greedy_without_cache
from tests.shapes import ARCHITECTURES

CONFIG = GPTConfig(block_size=24, vocab_size=50, n_layer=2, n_head=2, n_embd=16)
IDS = st.lists(st.integers(0, CONFIG.vocab_size - 1), min_size=1, max_size=CONFIG.block_size)


def lively_model(config: GPTConfig = CONFIG, dropout: float = 0.0) -> GPT:
    """A model in which all weights are random, including biases and norms, so that each of them has an effect."""
    torch.manual_seed(0)
    model = GPT(config, dropout).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


MODEL = lively_model()


@torch.inference_mode()
def logits(ids: list[int], cache: KVCache | None = None) -> torch.Tensor:
    out: torch.Tensor = MODEL(torch.tensor([ids]), cache)[0]
    return out


@settings(max_examples=60, deadline=None)
@given(IDS, st.data())
def test_chunks_over_a_cache_give_the_same_logits(ids: list[int], data: st.DataObject) -> None:
    cache = KVCache(CONFIG)
    pieces, start = [], 0
    while start < len(ids):
        end = data.draw(st.integers(start + 1, len(ids)))
        pieces.append(logits(ids[start:end], cache))
        start = end
        assert cache.length == start
    torch.testing.assert_close(torch.cat(pieces), logits(ids), rtol=0, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(IDS, IDS, st.data())
def test_a_rewound_cache_forgets_what_came_after(first: list[int], second: list[int], data: st.DataObject) -> None:
    cache = KVCache(CONFIG)
    logits(first, cache)
    kept = data.draw(st.integers(0, len(first)))
    cache.length = kept
    second = second[: CONFIG.block_size - kept]
    if second:
        fresh = logits(first[:kept] + second)[kept:]
        torch.testing.assert_close(logits(second, cache), fresh, rtol=0, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(IDS, st.data())
def test_a_later_token_changes_no_earlier_logit(ids: list[int], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(ids) - 1))
    other = data.draw(st.integers(0, CONFIG.vocab_size - 1).filter(lambda i: i != ids[at]))
    changed = [*ids[:at], other, *ids[at + 1 :]]
    before, after = logits(ids), logits(changed)
    torch.testing.assert_close(before[:at], after[:at], rtol=0, atol=1e-6)
    assert (before[at] - after[at]).abs().max() > 1e-3


def test_every_later_position_sees_the_first_token() -> None:
    before, after = logits([1] * CONFIG.block_size), logits([2] + [1] * (CONFIG.block_size - 1))
    assert bool(((before - after).abs().max(dim=-1).values > 1e-5).all())


def test_positions_count() -> None:
    same = logits([3] * CONFIG.block_size)
    assert (same[1:] - same[:-1]).abs().max(dim=-1).values.min() > 1e-3


@pytest.mark.parametrize("config", ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def test_every_architecture_is_the_same_with_a_cache_and_sees_no_future(config: GPTConfig) -> None:
    model = lively_model(config=config)
    torch.manual_seed(1)
    ids = torch.randint(config.vocab_size, (2, config.block_size))
    with torch.inference_mode():
        whole, cache, at = model(ids), KVCache(config, batch_size=2), 0
        pieces = []
        for length in (1, 7, 1, 1, 20, config.block_size - 30):
            pieces.append(model(ids[:, at : at + length], cache))
            at += length
        changed = model(torch.cat([ids[:, :-1], ids[:, -1:] ^ 1], dim=1))
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=0, atol=1e-4)
    torch.testing.assert_close(changed[:, :-1], whole[:, :-1], rtol=0, atol=1e-6)
    assert (changed[:, -1] - whole[:, -1]).abs().max() > 1e-3


@pytest.mark.parametrize("window", [1, 5])
def test_a_window_is_the_number_of_positions_that_count(window: int) -> None:
    config = replace(CONFIG, n_layer=1, windows=(window,))
    model = lively_model(config=config)
    ids = torch.randint(CONFIG.vocab_size, (1, CONFIG.block_size))
    with torch.inference_mode():
        last = model(ids)[0, -1]
        for back in range(1, CONFIG.block_size):
            changed = ids.clone()
            changed[0, -1 - back] ^= 1
            assert torch.equal(model(changed)[0, -1], last) is (back >= window), back


def test_rows_of_a_batch_do_not_mix() -> None:
    torch.manual_seed(3)
    rows = torch.randint(CONFIG.vocab_size, (3, 9))
    with torch.inference_mode():
        together = MODEL(rows)
        cache = KVCache(CONFIG, batch_size=3)
        steps = torch.cat([MODEL(rows[:, i : i + 1], cache) for i in range(9)], dim=1)
    apart = torch.stack([logits(row) for row in rows.tolist()])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-4)
    torch.testing.assert_close(steps, apart, rtol=0, atol=1e-4)


def test_the_logits_are_those_of_gpt_2s_formula() -> None:
    ids = torch.arange(10) * 5
    state, d = MODEL.state_dict(), CONFIG.n_embd
    with torch.inference_mode():
        x = state["wte.weight"][ids] + state["wpe.weight"][:10]
        for layer in range(CONFIG.n_layer):
            block = {name.removeprefix(f"h.{layer}."): w for name, w in state.items() if name.startswith(f"h.{layer}.")}
            y = F.layer_norm(x, (d,), block["ln_1.weight"], block["ln_1.bias"])
            heads = []
            qkv = (y @ block["attn.c_attn.weight"].T + block["attn.c_attn.bias"]).view(10, 3, CONFIG.n_head, -1)
            for head in range(CONFIG.n_head):
                q, k, v = qkv[:, 0, head], qkv[:, 1, head], qkv[:, 2, head]
                scores = (q @ k.T / math.sqrt(CONFIG.head_dim)).masked_fill(torch.ones(10, 10).triu(1) > 0, -math.inf)
                heads.append(scores.softmax(-1) @ v)
            x = x + torch.cat(heads, dim=-1) @ block["attn.c_proj.weight"].T + block["attn.c_proj.bias"]
            y = F.layer_norm(x, (d,), block["ln_2.weight"], block["ln_2.bias"])
            y = y @ block["mlp.c_fc.weight"].T + block["mlp.c_fc.bias"]
            y = 0.5 * y * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
            x = x + y @ block["mlp.c_proj.weight"].T + block["mlp.c_proj.bias"]
        expected = F.layer_norm(x, (d,), state["ln_f.weight"], state["ln_f.bias"]) @ state["wte.weight"].T
    torch.testing.assert_close(logits(ids.tolist()), expected, rtol=0, atol=1e-4)


def test_the_head_is_the_token_table() -> None:
    model = lively_model()
    tables = [name for name, p in model.named_parameters() if CONFIG.vocab_size in p.shape]
    assert tables == ["wte.weight"]
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        before = model(ids)
        model.wte.weight[7] = 0
        after = model(ids)
    assert float(after[..., 7].abs().max()) == 0
    untouched = [i for i in range(CONFIG.vocab_size) if i != 7]
    torch.testing.assert_close(after[..., untouched], before[..., untouched], rtol=0, atol=1e-6)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
def test_every_preset_has_the_parameters_that_it_says(preset: Preset) -> None:
    with torch.device("meta"):
        model = GPT(preset.config)
    counts = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert sum(counts.values()) == preset.config.parameters
    outside = sum(count for name, count in counts.items() if name not in ("wte.weight", "wpe.weight"))
    assert outside == preset.config.non_embedding_parameters


def test_the_weights_start_as_gpt_2s() -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(block_size=64, vocab_size=500, n_layer=8, n_head=2, n_embd=64))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif parameter.dim() == 1:
            assert bool((parameter == 1).all()), name
        else:
            expected = 0.02 / 4 if name.endswith("c_proj.weight") else 0.02
            assert float(parameter.detach().std()) == pytest.approx(expected, rel=0.05), name


def test_every_dropout_acts_and_in_training_alone() -> None:
    model = lively_model(dropout=0.5)
    ids = torch.tensor([[1, 2, 3, 4]])
    places: list[tuple[nn.Module, str]] = [(m, "p") for m in model.modules() if isinstance(m, nn.Dropout)]
    places += [(m, "dropout") for m in model.modules() if isinstance(m, CausalSelfAttention)]
    assert len(places) == 1 + 3 * CONFIG.n_layer
    for place, name in places:
        setattr(place, name, 0.0)
    with torch.no_grad():
        without = model.train()(ids)
        for place, name in places:
            setattr(place, name, 0.5)
            assert not torch.allclose(model.train()(ids), without)
            assert torch.equal(model.eval()(ids), model(ids))
            torch.testing.assert_close(model(ids), without)
            setattr(place, name, 0.0)


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_every_dropout_is_the_one_that_was_asked_for(dropout: float) -> None:
    model = GPT(CONFIG, dropout)
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == ({dropout} if dropout else set())
    assert {m.dropout for m in model.modules() if isinstance(m, CausalSelfAttention)} == {dropout}


def test_greedy_is_the_same_with_and_without_the_cache(tiny_checkpoint: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    prompt = [checkpoint.tokenizer.end_of_text, *checkpoint.tokenizer.encode("One day, Tom")]
    room = checkpoint.model.config.block_size - len(prompt)
    cached = generate_greedy(checkpoint.model, prompt, room)
    assert len(cached) == room
    with torch.inference_mode():
        whole = checkpoint.model(torch.tensor([prompt + cached[:-1]]))[0, len(prompt) - 1 :]
    assert cached == greedy_without_cache(checkpoint.model, prompt, room) == whole.argmax(-1).tolist()
