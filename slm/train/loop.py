"""The training loop: steps, evaluations, checkpoints, metrics and samples, with an exact resume."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError
from safetensors.torch import load_file

from slm.checkpoint import save_checkpoint, save_tensors
from slm.console.counted import counted, duration
from slm.console.errors import SlmxError, require
from slm.console.notice import print_notice
from slm.console.signals import StopFlag
from slm.metrics import shown_bits
from slm.model import GPT
from slm.presets import BLOCK_VARIANTS, TRACKERS
from slm.storage.read_errors import unreadable
from slm.train.evaluate import Evaluation, total_loss
from slm.train.hardware import (
    CompileError,
    compiling,
    device_name,
    make_accelerator,
    repeatable_sums,
    why_not_compiled,
)
from slm.train.memory import ShortageError, check_memory, naming_shortages
from slm.train.optim import build_optimizers, optimizer_tensors, restore_optimizers
from slm.train.plan import TrainSettings
from slm.train.qat import as_exported
from slm.train.remarks import remarks
from slm.train.run_folder import OPTIMIZER_FILE, RunFolder
from slm.train.sample_text import sample_stories
from slm.train.start import RunState, find_start
from slm.train.step import Learner
from slm.train.summary import plot_curve
from slm.train.teachers import MeanLogits, check_teachers, check_text
from slm.train.tracking import begin_tracking
from slm.train.windows import window_starts

LOG_EVERY = 10
TIMED_STEPS = 20  # before the time of a run is estimated
LINE_SECONDS = 30.0  # between two lines of progress in a log
SAMPLES = 3
SAMPLE_TEMPERATURE = 0.8


class Trainer:
    """One run: its model, optimizers and record, and the folder `settings.out` that holds them.

    Args:
        settings: What the user asks for.
        console: Where messages and progress go. It becomes quiet in all processes except the first.

    Raises:
        SlmxError: The settings, the data or a checkpoint cannot be used, or `settings.out` holds another run.
    """

    def __init__(self, settings: TrainSettings, console: Console) -> None:
        self.console = console
        self.folder = RunFolder(settings.out)
        require("track", *(name for name in TRACKERS if name in settings.track))
        if settings.resume:
            settings = self.folder.remembered(settings)
        missing = [name for name in settings.track if name in TRACKERS and find_spec(name) is None]
        settings = replace(settings, track=tuple(name for name in settings.track if name not in missing))
        start = find_start(settings, self.folder)
        config = start.check_shape(settings)  # before the text is prepared, which can take long
        self.teachers = start.teachers(settings)
        check_teachers(self.teachers, start.checkpoint, config)
        self.settings = replace(settings, teacher=tuple(each.checkpoint.folder for each in self.teachers))
        self.preset = start.preset
        accumulate = settings.accumulate or (start.state.plan.accumulate if start.state else 1)
        self.accelerator = make_accelerator(settings, accumulate)
        self.is_main = self.accelerator.is_main_process
        console.quiet = console.quiet or not self.is_main
        processes, device = self.accelerator.num_processes, self.accelerator.device
        # The vocabulary of the text and the batch of a run to resume are not known yet.
        check_memory(settings, replace(config, vocab_size=1), settings.batch_size or 1, accumulate, processes, device)
        with self.accelerator.main_process_first():
            self.dataset = start.open_data(settings, self.folder, console)
        config = start.shape(settings, self.dataset)
        check_text(self.teachers, self.dataset.tokenizer)
        self.plan = start.plan(settings, config, self.dataset)
        check_memory(settings, config, self.plan.batch_size, self.plan.accumulate, processes, device)
        if self.is_main:
            self.folder.make()
        torch.manual_seed(self.plan.seed)
        self.model = GPT(config, self.plan.dropout)
        if start.checkpoint is not None:
            self.model.load_state_dict(start.checkpoint.model.state_dict())
        self.model.to(self.accelerator.device)
        self.step = 0
        self.seconds = 0.0
        self.curve: list[dict[str, float]] = []
        self.best: dict[str, float] | None = None  # the point of the curve that `best` holds
        self.unlogged: list[float] = []  # the losses since the last line of metrics.jsonl
        self.before: float | None = None  # bits per byte before the first step of a fine-tuning that began here
        self.licence = settings.licence or self.dataset.record.get("licence")
        self.origin = start.origin()
        optimizers = build_optimizers(self.model, self.plan)
        models = [each.checkpoint.model for each in self.teachers]
        teacher = MeanLogits(models) if models else start.imitated(self.plan, self.folder)
        parts = (self.model, self.plan, self.dataset.train, self.accelerator, optimizers)
        self.learner = Learner(*parts, teacher, imitates=not models)
        if start.state is not None and start.checkpoint is not None:
            self._restore(start.state, start.checkpoint.folder, optimizers)
        elif start.defaults.name != self.preset:
            self._print(
                f"no preset has the shape of {settings.init}: training defaults are those of {start.defaults.name}, "
                "the preset nearest in parameters"
            )
        if self.folder.has_forgotten:
            self._print("run.json is missing or damaged: stop and give --no-compile and --track if the run had them")
        for name in missing:
            self._print(f"{name} is not installed here, so the run goes on without --track {name}")
        for line in remarks(settings, config, self.epochs):
            self._print(line)

    def _restore(self, state: RunState, saved: Path, optimizers: list[torch.optim.Optimizer]) -> None:
        file = saved / OPTIMIZER_FILE
        try:
            if state.steps_done:
                restore_optimizers(self.model, optimizers, load_file(file))
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise unreadable(file, error, advice=self.folder.way_back()) from error
        self.step, self.seconds, self.curve, self.best = state.steps_done, state.seconds, state.curve, state.best
        self.unlogged = state.unlogged
        self.licence = self.settings.licence or state.licence
        if self.is_main:
            self.folder.rotate(keep_first=self.plan.qat is not None)  # a kill can come before it
            # A run that is resumed at step 0 evaluates it again.
            self.folder.forget_after(self.step if self.step else -1)
        self._print(f"resumed at step {self.step} of {self.plan.steps}")
        if self.curve and not self.folder.best.is_dir():
            self._begin_best_anew()

    def _begin_best_anew(self) -> None:
        """Lets the best checkpoint, which was deleted, be the best of the steps from this one on."""
        self.best = self.curve[-1] if self.curve[-1]["step"] == self.step else None
        self.accelerator.wait_for_everyone()  # all processes have looked for it
        if self.best is not None and self.is_main:
            self._write_best()
        self.save_step()  # so that the deleted one does not come back after a kill

    def _print(self, line: str) -> None:
        print_notice(self.console, line)

    def record(self) -> dict[str, Any]:
        """Returns the training record: data, licence, plan, tokens seen, loss curve and bits per byte."""
        return {
            "data": self.dataset.record["sources"],
            "dataset_sha256": self.dataset.sha256,
            "licence": self.licence,
            "init": self.origin,
            **({"teachers": [teacher.record for teacher in self.teachers]} if self.teachers else {}),
            "plan": asdict(self.plan),
            "parameters": self.model.config.parameters,
            "training_tokens": len(self.dataset.train.ids),
            "validation_tokens": len(self.dataset.valid.ids),
            "steps_done": self.step,
            "tokens_seen": self.step * self.tokens_per_step,
            "seconds": round(self.seconds, 3),
            "precision": "bfloat16" if self.accelerator.mixed_precision == "bf16" else "float32",
            "device": device_name(self.accelerator.device),
            "processes": self.accelerator.num_processes,
            "torch": torch.__version__,
            "best": self.best,
            "curve": self.curve,
        }

    @property
    def tokens_per_step(self) -> int:
        """Tokens in a batch."""
        return self.plan.batch_size * self.model.config.block_size

    @property
    def epochs(self) -> float:
        """How often the whole run reads the training text."""
        return self.plan.steps * self.tokens_per_step / len(self.dataset.train.ids)

    def save_step(self) -> None:
        """Writes the numbered checkpoint of this step."""
        if not self.is_main:
            return
        with self.folder.new_step(self.step, keep_first=self.plan.qat is not None) as folder:
            save_tensors(optimizer_tensors(self.model, self.learner.inner_optimizers), folder / OPTIMIZER_FILE)
            self._write(folder, torch.float32, {"unlogged_losses": self.unlogged} if self.unlogged else {})

    def _write_best(self) -> None:
        with self.folder.new_best() as folder:
            # The export would round some weights of a float16 form to another number than the evaluation did.
            self._write(folder, torch.float32 if self.plan.qat in BLOCK_VARIANTS else torch.float16, {})

    def _write(self, folder: Path, dtype: torch.dtype, more: dict[str, Any]) -> None:
        dataset, record = self.dataset, self.record() | more
        save_checkpoint(folder, self.preset, self.model, dataset.tokenizer, dataset.merges, record, dtype)

    def run(self, stop: StopFlag) -> bool:
        """Trains to the last step.

        Args:
            stop: Is raised by Ctrl-C, SIGTERM and SIGHUP.

        Returns:
            False if a signal ended the run early. Its last step is saved then.

        Raises:
            SlmxError: A loss or a gradient is not finite, or the disk is full.
        """
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"))
        with (
            stop.raised_by_signals(),
            Progress(*columns, TimeRemainingColumn(), TextColumn("left"), console=self.console) as progress,
        ):
            bar = progress.add_task("training", total=self.plan.steps, completed=self.step, figures="")
            self.model.train()
            # If a tracker refuses, the folder of a new run is free, and a resumed run does not remember the tracker.
            self._remember(replace(self.settings, track=()))
            plan = {"preset": self.preset} | asdict(self.plan)
            begin_tracking(self.accelerator, self.settings, plan)
            self._remember(self.settings)
            if not self.step:
                self.save_step()
            if self.origin and not self.step:
                self._evaluate_start()
            rate, first, last_line = math.nan, self.step, time.perf_counter()
            if self.settings.compile is not False and why_not_compiled() is None:
                self._print("the first step compiles the model, which can take a minute or more")
            while not self.plan.is_finished(self.step, self.curve) and not self._must_stop(stop):
                started = time.perf_counter()
                with self._first_step() if self.step == first else nullcontext():
                    loss, norm = self.train_step()
                took = time.perf_counter() - started
                self.seconds += took
                self.unlogged.append(loss)
                mean = sum(self.unlogged) / len(self.unlogged)
                speed = self.tokens_per_step / took
                # The first step, in which torch.compile works, says nothing about the others.
                rate = speed if self.step <= first + 2 else 0.9 * rate + 0.1 * speed
                progress.update(bar, completed=self.step, figures=f"loss {mean:.3f} · {rate:,.0f} tokens/s")
                if self.step == first + TIMED_STEPS:
                    self._print_estimate(rate)
                if self.step % LOG_EVERY == 0 or self.step == self.plan.steps:
                    self._log(mean, norm, rate)
                    self.unlogged.clear()
                if self.step % self.plan.eval_every == 0 or self.step == self.plan.steps:
                    self.evaluate(mean, rate)
                    last_line = time.perf_counter()
                elif not self.console.is_terminal and time.perf_counter() - last_line > LINE_SECONDS:
                    self._print(f"step {self.step}/{self.plan.steps}  loss {mean:.3f}  {rate:,.0f} tokens/s")
                    last_line = time.perf_counter()
            finished = self.plan.is_finished(self.step, self.curve)
            if not finished:
                self.save_step()
        self.accelerator.end_training()
        return finished

    def _remember(self, settings: TrainSettings) -> None:
        if self.is_main:
            self.folder.remember(self.dataset.folder, settings)

    @contextmanager
    def _first_step(self) -> Iterator[None]:
        """Guards the step in which torch.compile works and memory grows. If a new run fails, its folder is free."""
        try:
            with naming_shortages(self.settings), compiling():
                yield
        except (CompileError, ShortageError):
            if not self.step and self.is_main:
                self.folder.forget_start()
            raise

    def _print_estimate(self, rate: float) -> None:
        steps = self.plan.steps - self.step
        if not steps:
            return
        time_left = duration(steps * self.tokens_per_step / rate)
        self._print(f"{counted(steps, 'step')} left: about {time_left} at {rate:,.0f} tokens/s, without evaluations")

    def train_step(self) -> tuple[float, float]:
        """Updates the weights once.

        Returns:
            The mean loss of the batch in nats per token, and the norm of the gradients before clipping.

        Raises:
            SlmxError: The loss or the norm is not finite. The weights are not changed then.
        """
        with repeatable_sums(self.accelerator.device):
            loss, norm = self.learner.compute_gradients(self.step)
            for what, value in (("loss", loss), ("the gradient's norm", norm)):
                if not math.isfinite(value):
                    raise self._not_finite(what, value, self._windows())
            self.learner.update_weights(self.step)
        self.step += 1
        return loss, norm

    def _must_stop(self, stop: StopFlag) -> bool:
        """Returns whether any process got a signal to stop. All processes must leave the loop at the same step."""
        if self.accelerator.num_processes == 1:
            return stop.number > 0
        flag = torch.tensor(float(stop.number > 0), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum") > 0)

    def _windows(self) -> str:
        """Returns where the batch of this step is in the training text."""
        plan, length = self.plan, len(self.dataset.train.ids)
        starts = window_starts(length, self.model.config.block_size, plan.batch_size, plan.seed, self.step)
        return f"windows at tokens {', '.join(map(str, starts.tolist()))}"

    def _not_finite(self, what: str, value: float, where: str) -> SlmxError:
        return SlmxError(
            f"{what} is {value} at step {self.step} ({where}); "
            f"the last good checkpoint is {self.folder.last}; start again with a lower --learning-rate"
        )

    def _log(self, loss: float, norm: float, rate: float) -> None:
        figures = {
            "loss": round(loss, 5),
            "gradient_norm": round(norm, 5),
            "learning_rate": self.plan.learning_rate_at(self.step - 1),
            "tokens_per_second": round(rate, 1),
        }
        self._record_metrics(figures)

    def _record_metrics(self, figures: dict[str, float]) -> None:
        if self.is_main:
            self.folder.log({"step": self.step, "seconds": round(self.seconds, 2)} | figures)
        self.accelerator.log(figures, step=self.step)

    def _validate(self) -> Evaluation:
        """Evaluates the model on the validation split and records the figures. Each process reads a part of it."""
        stream, block_size = self.dataset.valid, self.model.config.block_size
        inputs, targets = stream.windows(block_size, max(1, self.plan.eval_tokens // block_size))
        mine = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        with as_exported(self.model, self.plan.qat):
            nats = torch.tensor(total_loss(self.model, inputs[mine], targets[mine]), device=self.accelerator.device)
        result = Evaluation.of(float(self.accelerator.reduce(nats, "sum")), targets.size, stream)
        if not math.isfinite(result.bits_per_byte):
            raise self._not_finite("bits per byte", result.bits_per_byte, "validation")
        self._record_metrics({"valid_loss": round(result.loss, 5), "bits_per_byte": round(result.bits_per_byte, 5)})
        return result

    def _evaluate_start(self) -> None:
        """Evaluates the checkpoint that is fine-tuned, before the first step."""
        result = self._validate()
        self.before = round(result.bits_per_byte, 5)
        figures = f"{result.loss:.3f}, {shown_bits(result.bits_per_byte)} bits per byte"
        self._print(f"step 0/{self.plan.steps}  validation loss {figures}  before fine-tuning")

    def evaluate(self, loss: float, rate: float) -> None:
        """Evaluates the model and writes checkpoints, samples, metrics and the loss curve.

        Args:
            loss: The mean training loss since the last line of `metrics.jsonl`, in nats per token.
            rate: The tokens per second, for the message.
        """
        result = self._validate()
        figure = round(result.bits_per_byte, 5)  # as the record has it, which also says which step is the best
        point = {"step": self.step, "loss": round(loss, 4), "bits_per_byte": figure}
        self.curve.append(point)
        is_best = self.best is None or figure < self.best["bits_per_byte"]
        if is_best:
            self.best = point
        if self.is_main:
            if is_best:
                self._write_best()
            with as_exported(self.model, self.plan.qat):
                stories = sample_stories(
                    self.model, self.dataset.tokenizer, self.plan.seed, SAMPLES, temperature=SAMPLE_TEMPERATURE
                )
            out = self.settings.out
            try:
                self.folder.write_samples(self.step, stories)
                plot_curve(self.folder.metrics(), out / "loss.png", f"{out.absolute().name} ({self.preset})")
            finally:
                self.save_step()  # last, so that a resumed run writes again whatever a kill prevented
        self.accelerator.wait_for_everyone()
        mark = "  best so far" if is_best else ""
        if is_best and self.before is not None and figure >= self.before:
            mark += ", but no better than before fine-tuning"
        self._print(
            f"step {self.step}/{self.plan.steps}  loss {loss:.3f}  validation loss {result.loss:.3f}, "
            f"{shown_bits(figure)} bits per byte  {rate:,.0f} tokens/s{mark}"
        )
