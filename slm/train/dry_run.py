"""Estimates time, memory and disk space of a training run from a few timed steps, without a trace of the run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from rich.console import Console

from slm.console.counted import counted, duration
from slm.train.hardware import compiling
from slm.train.loop import Trainer
from slm.train.memory import naming_shortages
from slm.train.plan import TrainSettings
from slm.train.run_folder import KEPT_CHECKPOINTS, RunFolder
from slm.train.summary import peak_memory

TIMED_STEPS = 10


@dataclass(frozen=True)
class Estimate:
    """What a run will need.

    Attributes:
        parameters: The number of weights.
        steps: The number of steps.
        tokens: The tokens that the run will read.
        epochs: How often it will read the training text.
        first_step_seconds: The time of the first step, in which torch.compile works.
        step_seconds: The median time of a later step.
        evaluations: How often the run will be evaluated.
        evaluation_seconds: The time of an evaluation, with its checkpoints and samples.
        memory_bytes: The peak memory of the process so far.
        disk_bytes: The space of the checkpoints at the end of an evaluation, when there are most.
    """

    parameters: int
    steps: int
    tokens: int
    epochs: float
    first_step_seconds: float
    step_seconds: float
    evaluations: int
    evaluation_seconds: float
    memory_bytes: int
    disk_bytes: int

    @property
    def seconds(self) -> float:
        """The time of the whole run."""
        return (
            self.first_step_seconds + (self.steps - 1) * self.step_seconds + self.evaluations * self.evaluation_seconds
        )

    def lines(self) -> Iterator[str]:
        """Yields the figures as lines of text."""
        yield f"parameters  {self.parameters:,}"
        yield f"steps       {self.steps:,}, {self.tokens:,} tokens, {self.epochs:.1f} times the training text"
        rate, evaluations = self.tokens / self.steps / self.step_seconds, counted(self.evaluations, "evaluation")
        yield f"time        {duration(self.seconds)} at {rate:,.0f} tokens/s, {evaluations} included"
        yield f"memory      {self.memory_bytes / 2**20:,.0f} MiB"
        yield f"disk        {self.disk_bytes / 2**20:,.0f} MiB for checkpoints"


def dry_run(settings: TrainSettings, console: Console) -> Estimate:
    """Prepares a run, takes some of its steps and one evaluation in a temporary folder, and deletes them.

    Args:
        settings: What the user asks for. Nothing is written to `settings.out`.
        console: Where messages and progress go.

    Raises:
        SlmxError: As in `slm.train.train.train`.
    """
    RunFolder(settings.out).check_free()
    with tempfile.TemporaryDirectory() as work, naming_shortages(settings):
        trainer = Trainer(replace(settings, out=Path(work) / "run"), console)
        plan = trainer.plan
        trainer.model.train()
        with compiling():
            first, *rest = (_timed(trainer.train_step) for _ in range(min(TIMED_STEPS + 1, plan.steps)))
        console.quiet = True  # the evaluation of a few steps says nothing about the run
        evaluation = _timed(lambda: trainer.evaluate(0.0, 0.0))
        sizes = {
            folder.name: sum(path.stat().st_size for path in folder.iterdir())
            for folder in (trainer.folder.best, *trainer.folder.steps())
        }
        best = sizes.pop("best")
        tokens = plan.steps * trainer.tokens_per_step
        return Estimate(
            parameters=trainer.model.config.parameters,
            steps=plan.steps,
            tokens=tokens,
            epochs=trainer.epochs,
            first_step_seconds=first,
            step_seconds=median(rest) if rest else first,
            evaluations=-(-plan.steps // plan.eval_every) + (trainer.origin is not None),  # one before a fine-tuning
            evaluation_seconds=evaluation,
            memory_bytes=peak_memory(trainer.accelerator.device),
            disk_bytes=2 * best + (KEPT_CHECKPOINTS + 1 + (plan.qat is not None)) * max(sizes.values()),
        )


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
