"""The figures of a finished run."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from slm.model import GPT
from slm.presets import PRESETS, GPTConfig
from slm.train.summary import Summary, flops_per_token, matmul_rate, peak_memory, plot_curve

SUMMARY = Summary("nano", 1_850_112, 10, 40_960, 0.8, 2.0, 3.0, 10**12, 2e12, 512 * 2**20)


def test_the_work_of_a_token_is_what_torch_counts() -> None:
    """torch counts the products of one forward and backward; the formula counts attention's masked half too."""
    config = GPTConfig(block_size=64, vocab_size=500, n_layer=2, n_head=2, n_embd=32)
    model = GPT(config)
    ids = torch.randint(500, (2, 64))
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model(ids).sum().backward()
    products = 6 * (config.parameters - sum(p.numel() for p in model.parameters() if p.dim() < 2))
    ours = flops_per_token(config)
    assert counter.get_total_flops() / 128 == pytest.approx(ours, rel=0.03)
    assert ours > products * 0.9


@pytest.mark.parametrize("name", PRESETS)
def test_the_work_grows_with_the_preset(name: str) -> None:
    config = PRESETS[name].config
    assert 6 * config.non_embedding_parameters < flops_per_token(config) < 12 * config.parameters


def test_rates_and_shares() -> None:
    assert SUMMARY.tokens_per_second == 20_480
    assert SUMMARY.utilisation == 0.25
    text = "\n".join(SUMMARY.lines())
    for part in ("0.8000 bits per byte", "1,850,112", "40,960 tokens", "20,480 tokens/s", "25%", "512 MiB"):
        assert part in text


def test_the_file_holds_every_figure(tmp_path: Path) -> None:
    SUMMARY.write(tmp_path)
    stored = json.loads((tmp_path / "summary.json").read_text())
    assert stored["tokens_per_second"] == 20_480
    assert stored["utilisation"] == 0.25
    assert stored["bits_per_byte"] == 0.8


def test_the_matrix_rate_is_measured_in_half_a_second() -> None:
    started = time.perf_counter()
    rate = matmul_rate(torch.device("cpu"), torch.float32, seconds=0.1)
    assert 1e8 < rate < 1e14
    assert time.perf_counter() - started < 30


def test_peak_memory_is_in_bytes() -> None:
    assert 50 * 2**20 < peak_memory(torch.device("cpu")) < 2**40


@pytest.mark.parametrize(
    "metrics",
    [
        [],
        [{"step": 1, "loss": 2.0}],
        [{"step": 1, "loss": 2.0}, {"step": 2, "bits_per_byte": 0.9}, {"step": 4, "bits_per_byte": 0.8}],
    ],
)
def test_the_picture_is_a_png_whatever_there_is(metrics: list[dict[str, float]], tmp_path: Path) -> None:
    plot_curve(metrics, tmp_path / "loss.png", "nano")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
