"""Training speed against plain float32 code of nanoGPT's kind: python -m benchmarks.studies.training --data DIR."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from torch.nn import functional as F

from runtimes.system.machine import describe_machine
from runtimes.system.timing import alternate
from slm.errors import SlmxError
from slm.model import GPT
from slm.train.loop import Trainer
from slm.train.optim import build_optimizers
from slm.train.plan import TrainSettings
from slm.train.windows import batch_at

STEPS_A_ROUND = 4
SEED = 1


class PlainLoop:
    """Eager float32, the logits whole, AdamW, clipping: what a minimal GPT trainer does in a step."""

    def __init__(self, trainer: Trainer) -> None:
        torch.manual_seed(SEED)
        self.trainer = trainer
        self.model = GPT(trainer.model.config, trainer.plan.dropout)
        self.model.load_state_dict(trainer.model.state_dict())
        (self.optimizer,) = build_optimizers(self.model, trainer.plan)
        self.step = 0

    def one_step(self) -> float:
        """Train on the batch that slmx trains on in the same step; returns the loss."""
        plan = self.trainer.plan
        for group in self.optimizer.param_groups:
            group["lr"] = plan.learning_rate_at(self.step)
        stream, block_size = self.trainer.dataset.train, self.model.config.block_size
        inputs, targets = batch_at(stream, block_size, plan.batch_size, plan.seed, self.step)
        loss = F.cross_entropy(self.model(inputs).flatten(0, 1), targets.flatten())
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), plan.grad_clip)
        self.optimizer.step()
        self.step += 1
        return float(loss.detach())


def main(
    data: Annotated[Path, typer.Option(help="Folder from slmx prepare.")],
    presets: Annotated[str, typer.Option(help="Separated by commas.")] = "nano,micro",
    rounds: Annotated[int, typer.Option(min=2)] = 12,
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Alternate the sides on the same batches from the same weights; print one JSON object."""
    torch.set_num_threads(threads)
    report: dict[str, object] = {"machine": describe_machine() | {"threads": str(threads)}}
    for preset in presets.split(","):
        with tempfile.TemporaryDirectory() as folder:
            report[preset] = _compare(preset, data, Path(folder), rounds)
    typer.echo(json.dumps(report, indent=1))


def _compare(preset: str, data: Path, folder: Path, rounds: int) -> dict[str, object]:
    quiet = Console(quiet=True)
    losses: dict[str, list[float]] = {}

    def trainer(optimizer: str) -> Trainer:
        settings = TrainSettings(
            out=folder / optimizer,
            text=(str(data),),
            preset=preset,
            optimizer=optimizer,
            steps=10_000,
            dropout=0.0,
            seed=SEED,
        )
        return Trainer(settings, quiet)

    adamw, muon = trainer("adamw"), trainer("muon")
    plain = PlainLoop(adamw)
    adamw.model.train()
    muon.model.train()
    steps: dict[str, Callable[[], float]] = {
        "plain float32, AdamW": plain.one_step,
        "slmx, AdamW": lambda: adamw.train_step()[0],
        "slmx, Muon": lambda: muon.train_step()[0],
    }

    def side(name: str) -> Callable[[], float]:
        def run() -> float:
            started = time.perf_counter()
            losses.setdefault(name, []).extend(steps[name]() for _ in range(STEPS_A_ROUND))
            return STEPS_A_ROUND * adamw.tokens_per_step / (time.perf_counter() - started)

        return run

    samples = alternate({name: side(name) for name in steps}, rounds)
    base = samples["plain float32, AdamW"]
    rows = {
        name: {
            "tokens_per_second": round(taken.median, 1),
            "spread": round(taken.spread, 3),
            "times_plain": round(statistics.median(a / b for a, b in zip(taken.values, base.values, strict=True)), 2),
            "loss_of_the_last_steps": round(statistics.mean(losses[name][-8:]), 4),
            "samples": [round(value, 1) for value in taken.values],
        }
        for name, taken in samples.items()
    }
    precision = adamw.accelerator.mixed_precision
    return {"batch_tokens": adamw.tokens_per_step, "precision": precision, "steps": adamw.step, "sides": rows}


if __name__ == "__main__":
    try:
        typer.run(main)
    except SlmxError as error:
        raise SystemExit(f"benchmarks.studies.training: {error}") from None
