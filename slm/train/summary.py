"""What a finished run comes to: speed, floating-point work, memory, and the picture of its loss."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from slm.presets import GPTConfig

MATMUL_SIZE = 2048
SUMMARY_FILE = "summary.json"


@dataclass(frozen=True)
class Summary:
    """A finished run in figures; the training time is that of all its parts, the wall time of the last one."""

    preset: str
    parameters: int
    steps: int
    tokens: int
    bits_per_byte: float
    training_seconds: float
    wall_seconds: float
    flops: int
    matmul_flops_per_second: float
    peak_memory_bytes: int

    @property
    def tokens_per_second(self) -> float:
        """Over the training time."""
        return self.tokens / self.training_seconds

    @property
    def utilisation(self) -> float:
        """Share of the rate that a large matrix product reaches on the same device in the same precision."""
        return self.flops / self.training_seconds / self.matmul_flops_per_second

    def write(self, folder: Path) -> None:
        """Write `summary.json`."""
        figures = asdict(self) | {"tokens_per_second": self.tokens_per_second, "utilisation": self.utilisation}
        (folder / SUMMARY_FILE).write_text(json.dumps(figures, indent=1) + "\n", "utf-8")

    def lines(self) -> Iterator[str]:
        """The figures for people."""
        yield f"{self.preset}: {self.bits_per_byte:.4f} bits per byte at best, {self.parameters:,} parameters"
        yield (
            f"{self.tokens:,} tokens in {self.steps:,} steps, {self.tokens_per_second:,.0f} tokens/s, "
            f"{self.training_seconds:,.1f} s of training, {self.wall_seconds:,.1f} s in all"
        )
        yield (
            f"{self.flops:.3g} floating-point operations, {self.utilisation:.0%} of the matrix rate here "
            f"({self.matmul_flops_per_second:.3g}/s), peak memory {self.peak_memory_bytes / 2**20:,.0f} MiB"
        )


def flops_per_token(config: GPTConfig) -> int:
    """Floating-point operations to train on one token: 6 a weight that multiplies, 12 a channel, layer and position.

    Chowdhery et al., 2022 (arXiv:2204.02311), appendix B; the tied head multiplies, the position table does not.
    """
    weights = config.parameters - config.block_size * config.n_embd
    return 6 * weights + 12 * config.n_layer * config.n_embd * config.block_size


def matmul_rate(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """Floating-point operations a second of a large square matrix product here: the best of half a second."""
    a, b = (torch.randn(MATMUL_SIZE, MATMUL_SIZE, device=device).to(dtype) for _ in range(2))
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        product = a @ b
        float(product[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * MATMUL_SIZE**3 / best


def peak_memory(device: torch.device) -> int:
    """Bytes: the most a CUDA device held for tensors, else the most that this process was resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def plot_curve(metrics: list[dict[str, Any]], path: Path, title: str) -> None:
    """Draw training loss and validation bits per byte over the steps as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    losses = figure.add_subplot()
    trained = [(m["step"], m["loss"]) for m in metrics if "loss" in m]
    judged = [(m["step"], m["bits_per_byte"]) for m in metrics if "bits_per_byte" in m]
    if trained:
        losses.plot(*zip(*trained, strict=True), color="tab:blue", alpha=0.6, linewidth=1)
    losses.set_xlabel("step")
    losses.set_ylabel("training loss, nats per token", color="tab:blue")
    losses.grid(alpha=0.3)
    bits = losses.twinx()
    if judged:
        bits.plot(*zip(*judged, strict=True), color="tab:orange", marker="o", markersize=3)
        step, figure_ = min(judged, key=lambda point: point[1])
        bits.annotate(f"{figure_:.4f}", (step, figure_), textcoords="offset points", xytext=(0, 8), ha="center")
    bits.set_ylabel("validation, bits per byte", color="tab:orange")
    losses.set_title(title)
    figure.savefig(path)
