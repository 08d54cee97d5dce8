"""Measures the speed of training: `python -m benchmarks.studies.training --text DIR`, with DIR from slmx prepare.

It is compared with plain float32 code similar to nanoGPT, and with slmx without `repeatable_sums`. The second
comparison shows the cost of an exact resume.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from torch.nn import functional as F

from benchmarks.program import run
from benchmarks.studies.results import Out, Presets, Rounds, write_results
from runtimes.system.timing import alternate
from slm.model import GPT
from slm.train.loop import Trainer
from slm.train.optim import build_optimizers
from slm.train.plan import TrainSettings
from slm.train.windows import batch_at

PRESETS = ("nano", "micro")
STEPS_A_ROUND = 4
SEED = 1
PLAIN = "plain float32, AdamW"
EXACT = "slmx, Muon"
ANY_ORDER = "slmx, Muon, sums in any order"


def step_in_any_order(trainer: Trainer) -> float:
    """Trains one step without `repeatable_sums` and returns the loss in nats per token."""
    loss, _ = trainer.learner.compute_gradients(trainer.step)
    trainer.learner.update_weights(trainer.step)
    trainer.step += 1
    return loss


class PlainLoop:
    """A minimal GPT trainer: float32, not compiled, all logits at once, AdamW, gradients clipped.

    Args:
        trainer: A run with AdamW. Its weights, plan and batches are used.
    """

    def __init__(self, trainer: Trainer) -> None:
        torch.manual_seed(SEED)
        self.trainer = trainer
        self.model = GPT(trainer.model.config, trainer.plan.dropout)
        self.model.load_state_dict(trainer.model.state_dict())
        (self.optimizer,) = build_optimizers(self.model, trainer.plan)
        self.step = 0

    def one_step(self) -> float:
        """Trains on the batch of slmx in the same step and returns the loss in nats per token."""
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


def compare(preset: str, text: Path, folder: Path, rounds: int) -> dict[str, Any]:
    """Trains a preset with every runner in turn; returns the figures for JSON."""
    quiet = Console(quiet=True)
    losses: dict[str, list[float]] = {}

    def trainer(name: str, optimizer: str) -> Trainer:
        settings = TrainSettings(
            out=folder / name,
            text=(str(text),),
            preset=preset,
            arch="gpt2",
            optimizer=optimizer,
            steps=10_000,
            dropout=0.0,
            seed=SEED,
        )
        made = Trainer(settings, quiet)
        made.model.train()
        return made

    adamw, muon, any_order = trainer("adamw", "adamw"), trainer("muon", "muon"), trainer("any-order", "muon")
    steps: dict[str, Callable[[], float]] = {
        PLAIN: PlainLoop(adamw).one_step,
        "slmx, AdamW": lambda: adamw.train_step()[0],
        EXACT: lambda: muon.train_step()[0],
        ANY_ORDER: lambda: step_in_any_order(any_order),
    }

    def runner(name: str) -> Callable[[], float]:
        def one_round() -> float:
            started = time.perf_counter()
            losses.setdefault(name, []).extend(steps[name]() for _ in range(STEPS_A_ROUND))
            return STEPS_A_ROUND * adamw.tokens_per_step / (time.perf_counter() - started)

        return one_round

    samples = alternate({name: runner(name) for name in steps}, rounds)

    def ratio(name: str, base: str) -> float:
        pairs = zip(samples[name].values, samples[base].values, strict=True)
        return round(statistics.median(a / b for a, b in pairs), 3)

    rows = {
        name: {
            "tokens_per_second": round(taken.median, 1),
            "spread": round(taken.spread, 3),
            "times_plain": ratio(name, PLAIN),
            "loss_of_the_last_steps": round(statistics.mean(losses[name][-8:]), 4),
            "samples": [round(value, 1) for value in taken.values],
        }
        for name, taken in samples.items()
    }
    return {
        "batch_tokens": adamw.tokens_per_step,
        "precision": adamw.accelerator.mixed_precision,
        "steps": adamw.step,
        "runners": rows,
        "exact_times_any_order": ratio(EXACT, ANY_ORDER),
    }


def table(preset: str, found: Mapping[str, Any]) -> str:
    """Returns the runners of a preset as Markdown."""
    lines = [f"| {preset} | tokens/s | | loss after {found['steps']} steps |", "|---|---:|---:|---:|"]
    for name, row in found["runners"].items():
        speed = f"{row['tokens_per_second']:,.0f} ±{row['spread']:.0%} | {row['times_plain']:.2f}x"
        lines.append(f"| {name} | {speed} | {row['loss_of_the_last_steps']:.4f} |")
    lines.append(f"\n{EXACT} / {ANY_ORDER}: {found['exact_times_any_order']:.3f}")
    return "\n".join(lines)


def main(
    text: Annotated[Path, typer.Option(help="Folder from slmx prepare.")],
    preset: Presets = None,
    rounds: Rounds = 12,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    out: Out = None,
) -> None:
    """Run all trainers in turn on the same batches from the same weights, and print a table for each preset."""
    torch.set_num_threads(threads)
    results = {}
    for name in preset or PRESETS:
        with tempfile.TemporaryDirectory() as folder:
            results[name] = compare(name, text, Path(folder), rounds)
        typer.echo(f"{table(name, results[name])}\n")
    write_results(out, {"rounds": rounds, "threads": threads}, results)


if __name__ == "__main__":
    run(main)
