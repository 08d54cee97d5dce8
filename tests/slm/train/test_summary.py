"""The figures of a finished run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode

import slm.train.summary
from slm.model import GPT
from slm.presets import GPTConfig
from slm.storage.disk import WriteError
from slm.train.summary import Summary, flops_per_token, matmul_rate, peak_memory, plot_curve

SUMMARY = Summary("nano", 1_850_112, 10, 40_960, 0.8, 2.0, 3.0, 10**12, 2e12, 512 * 2**20)


def test_the_work_of_a_token_is_what_torch_counts() -> None:
    """torch counts the products of one forward and backward pass. The formula also counts attention's masked half."""
    config = GPTConfig(block_size=64, vocab_size=500, n_layer=2, n_head=2, n_embd=32)
    model = GPT(config)
    ids = torch.randint(500, (2, 64))
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model(ids).sum().backward()
    products = 6 * (config.parameters - sum(p.numel() for p in model.parameters() if p.dim() < 2))
    ours = flops_per_token(config, [])
    assert 3 * flops_per_token(config, [config]) == 4 * ours
    assert counter.get_total_flops() / 128 == pytest.approx(ours, rel=0.03)
    assert ours > products * 0.9


def test_rates_and_shares() -> None:
    assert SUMMARY.tokens_per_second == 20_480
    assert SUMMARY.utilisation == 0.25
    text = "\n".join(SUMMARY.lines())
    for part in ("0.8000 bits per byte", "1,850,112", "40,960 tokens", "20,480 tokens/s", "25%", "512 MiB"):
        assert part in text


def test_the_file_holds_every_figure(tmp_path: Path) -> None:
    SUMMARY.write(tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text("utf-8")) == {
        "preset": "nano",
        "parameters": 1_850_112,
        "steps": 10,
        "tokens": 40_960,
        "bits_per_byte": 0.8,
        "training_seconds": 2.0,
        "wall_seconds": 3.0,
        "flops": 10**12,
        "matmul_flops_per_second": 2e12,
        "peak_memory_bytes": 512 * 2**20,
        "tokens_per_second": 20_480,
        "utilisation": 0.25,
    }


def test_the_matrix_rate_is_that_of_the_fastest_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is read at the start, before each product, and at its start and end: 4 s, 2 s and 3 s."""
    clock = iter([0.0, 0.0, 0.0, 4.0, 4.0, 4.0, 6.0, 6.0, 6.0, 9.0, 10.0])
    monkeypatch.setattr(slm.train.summary, "MATMUL_SIZE", 8)
    monkeypatch.setattr(slm.train.summary, "MATMUL_SECONDS", 10.0)
    monkeypatch.setattr("slm.train.summary.time.perf_counter", lambda: next(clock))
    assert matmul_rate(torch.device("cpu"), torch.float32) == 2 * 8**3 / 2.0


def test_the_peak_memory_is_that_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7)
    monkeypatch.setattr(slm.train.summary, "peak_bytes", lambda: 9)
    assert peak_memory(torch.device("cpu")) == 9
    assert peak_memory(torch.device("cuda")) == 7


@pytest.mark.parametrize(
    "metrics",
    [
        [],
        [{"step": 1, "loss": 2.0}],
        [{"step": 1, "loss": 2.0}, {"step": 2, "valid_loss": 2.1, "bits_per_byte": 0.9}],
        [{"step": 1, "valid_loss": 2.0}],
    ],
)
def test_the_plot_is_a_png_whatever_there_is(metrics: list[dict[str, float]], tmp_path: Path) -> None:
    plot_curve(metrics, tmp_path / "loss.png", "nano")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_files_of_a_run_appear_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", fail)
    said = r"cannot write \(Input/output error\); check the disk"
    with pytest.raises(WriteError, match=rf"summary.json: {said}"):
        SUMMARY.write(tmp_path)
    with pytest.raises(WriteError, match=rf"loss.png: {said}"):
        plot_curve([], tmp_path / "loss.png", "nano")
    assert list(tmp_path.iterdir()) == []


def test_the_plot_shows_every_loss_and_marks_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, file: IO[bytes], format: str) -> None:
        figures.append(figure)
        save(figure, file, format=format)

    monkeypatch.setattr(Figure, "savefig", keep)
    metrics = [
        {"step": 1, "loss": 2.0},
        {"step": 2, "valid_loss": 1.9, "bits_per_byte": 0.8},
        {"step": 4, "valid_loss": 2.2, "bits_per_byte": 0.9},
    ]
    plot_curve(metrics, tmp_path / "loss.png", "nano")
    (losses,) = figures[0].axes
    assert losses.get_ylabel() == "loss, nats per token"
    assert losses.get_title() == "nano"
    assert np.asarray(losses.lines[0].get_xydata()).tolist() == [[1, 2.0]]
    assert np.asarray(losses.lines[1].get_xydata()).tolist() == [[2, 1.9], [4, 2.2]]
    assert [text.get_text() for text in losses.texts] == ["1.900, 0.8000 bits per byte"]
