"""The figures of a finished run: speed, floating-point operations and memory, and the plot of its loss."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from slm.console.counted import counted
from slm.memory import peak_bytes
from slm.metrics import shown_bits
from slm.presets import GPTConfig
from slm.storage.disk import atomic_file, write_file

MATMUL_SIZE, MATMUL_SECONDS = 2048, 0.5
SUMMARY_FILE = "summary.json"


@dataclass(frozen=True)
class Summary:
    """The figures of a finished run.

    Attributes:
        bits_per_byte: The lowest value on the validation split.
        training_seconds: The time of all steps, over all parts of a run that was resumed.
        wall_seconds: The whole time of the last part, including evaluations and checkpoints.
        flops: Floating-point operations of all steps.
        matmul_flops_per_second: The rate of a large matrix product on the same device in the same precision.
    """

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
        """Tokens per second of training time."""
        return self.tokens / self.training_seconds

    @property
    def utilisation(self) -> float:
        """The rate of floating-point operations as a share of `matmul_flops_per_second`."""
        return self.flops / self.training_seconds / self.matmul_flops_per_second

    def write(self, folder: Path) -> None:
        """Writes `summary.json`."""
        figures = asdict(self) | {"tokens_per_second": self.tokens_per_second, "utilisation": self.utilisation}
        write_file(folder / SUMMARY_FILE, json.dumps(figures, indent=1).encode() + b"\n")

    def lines(self) -> Iterator[str]:
        """Yields the figures as lines of text."""
        yield f"{self.preset}: {shown_bits(self.bits_per_byte)} bits per byte at best, {self.parameters:,} parameters"
        yield (
            f"{self.tokens:,} tokens in {counted(self.steps, 'step')}, {self.tokens_per_second:,.0f} tokens/s, "
            f"{self.training_seconds:,.1f} s in steps; this command took {self.wall_seconds:,.1f} s"
        )
        yield (
            f"{self.flops:.3g} floating-point operations, {self.utilisation:.0%} of the rate of large matrix products "
            f"here ({self.matmul_flops_per_second:.3g}/s), peak memory {self.peak_memory_bytes / 2**20:,.0f} MiB"
        )


def flops_per_token(config: GPTConfig, teachers: Sequence[GPTConfig]) -> int:
    """Returns the floating-point operations of training on one token.

    They are 6 for each weight of a matrix product, and 12 for each channel, layer and position of the attention
    (Chowdhery et al., 2022, arXiv:2204.02311, appendix B). A head counts once, whether or not it is the token table.
    The position table does not count. A third of these operations are the forward pass, the only one of a teacher.

    Args:
        config: The shape of the model, whose context the teachers read too.
        teachers: The shapes of the models that the run imitates.
    """
    context = config.block_size
    return 3 * _forward_flops(config, context) + sum(_forward_flops(teacher, context) for teacher in teachers)


def _forward_flops(config: GPTConfig, context: int) -> int:
    weights = config.vocab_size * config.n_embd + config.non_embedding_parameters
    return 2 * weights + 4 * config.n_layer * config.n_head * config.head_dim * context


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measures the floating-point operations per second of a large matrix product: the best in `MATMUL_SECONDS`."""
    a, b = (torch.randn(MATMUL_SIZE, MATMUL_SIZE, device=device).to(dtype) for _ in range(2))
    best, until = float("inf"), time.perf_counter() + MATMUL_SECONDS
    while time.perf_counter() < until:
        started = time.perf_counter()
        product = a @ b
        float(product[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * MATMUL_SIZE**3 / best


def peak_memory(device: torch.device) -> int:
    """Returns the highest memory use in bytes: of a CUDA device's tensors, or else of this process (resident set)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_bytes()


def plot_curve(metrics: list[dict[str, float]], path: Path, title: str) -> None:
    """Plots the loss in training and validation over the steps, both in nats per token.

    Args:
        metrics: The lines of `metrics.jsonl`.
        path: The PNG file to write.
        title: The title of the plot.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    losses = figure.add_subplot()
    trained = [(m["step"], m["loss"]) for m in metrics if "loss" in m]
    validations = [m for m in metrics if "valid_loss" in m and "bits_per_byte" in m]
    validated = [(m["step"], m["valid_loss"]) for m in validations]
    if trained:
        losses.plot(*zip(*trained, strict=True), color="tab:blue", alpha=0.6, linewidth=1, label="training")
    if validated:
        losses.plot(*zip(*validated, strict=True), color="tab:orange", marker="o", markersize=3, label="validation")
        best = min(validations, key=lambda m: m["valid_loss"])
        losses.annotate(
            f"{best['valid_loss']:.3f}, {shown_bits(best['bits_per_byte'])} bits per byte",
            (best["step"], best["valid_loss"]),
            textcoords="offset points",
            xytext=(0, 8),
            ha="right",
        )
    losses.set_xlabel("step")
    losses.set_ylabel("loss, nats per token")
    losses.grid(alpha=0.3)
    if trained or validated:
        losses.legend()
    losses.set_title(title)
    with atomic_file(path) as file:
        figure.savefig(file, format="png")
