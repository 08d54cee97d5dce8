"""Training: Muon or AdamW under `accelerate`, exact resume, best and numbered checkpoints, metrics, samples."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from slm.checkpoint import CONFIG_FILE, Checkpoint, find_checkpoint, load_checkpoint, save_checkpoint, save_tensors
from slm.data.dataset import DATASET_FILE, Dataset, is_dataset
from slm.data.prepare import PrepareSettings, prepare
from slm.errors import SlmxError
from slm.hashing import sha256_of
from slm.metrics import bits_per_byte
from slm.model import GPT
from slm.presets import get_preset
from slm.train.evaluate import total_loss
from slm.train.hardware import make_accelerator
from slm.train.optim import build_optimizers, optimizer_tensors, restore_optimizers
from slm.train.plan import Plan, TrainSettings, make_plan
from slm.train.run_folder import OPTIMIZER_FILE, RunFolder
from slm.train.sample_text import sample_stories
from slm.train.summary import Summary, flops_per_token, matmul_rate, peak_memory, plot_curve
from slm.train.windows import batch_at, window_starts

LOG_EVERY = 10
SAMPLES = 3
SAMPLE_TEMPERATURE = 0.8


class StoryLoss(nn.Module):
    """The model and its loss in one forward, which lets torch.compile fuse the loss into the head."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean nats per token, a scalar, for int64 [batch, sequence] twice."""
        return F.cross_entropy(self.model(inputs).flatten(0, 1).float(), targets.flatten())


@contextmanager
def _stop_flag() -> Iterator[list[bool]]:
    """A list that becomes [True] at Ctrl-C or SIGTERM, so that a step is never cut in half."""
    flag = [False]
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: flag.__setitem__(0, True)) for number in signals]
    try:
        yield flag
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _origin(start: Checkpoint) -> dict[str, Any]:
    """Which checkpoint a fine-tuned model was, and that one's own training record."""
    return {"config_sha256": sha256_of(start.folder / CONFIG_FILE), "record": start.record}


class Trainer:
    """One run: its model, optimizers and record, and the folder `out` that holds them."""

    def __init__(self, settings: TrainSettings, console: Console) -> None:
        self.settings = settings
        self.console = console
        self.folder = RunFolder(settings.out)
        if self.folder.last is not None and not settings.resume:
            raise SlmxError(f"{settings.out}: holds a run already; add --resume to go on, or choose another --out")
        saved = self.folder.load_last() if settings.resume else None
        start = saved
        if saved is None and settings.init is not None:
            start = load_checkpoint(settings.init)
        self.preset = get_preset(settings.preset or (start.preset if start else "nano"))
        if start is not None and start.preset != self.preset.name:
            raise SlmxError(f"{start.folder}: a checkpoint of {start.preset}, not {self.preset.name}; change --preset")
        stored = self.folder.settings() if saved else {}
        self.accelerator = make_accelerator(settings, settings.accumulate or stored.get("accumulate", 1))
        self.is_main = self.accelerator.is_main_process
        if self.is_main:
            self.folder.make()
        with self.accelerator.main_process_first():
            self.dataset = self._open_data(stored)
        self.merges = self.dataset.merges
        self.tokenizer = self.dataset.tokenizer
        if start is not None:
            if start.tokenizer.ranks != self.tokenizer.ranks:
                raise SlmxError(
                    f"{self.dataset.folder}: its tokenizer is not that of {start.folder}; "
                    f"prepare the text with --tokenizer {start.folder}"
                )
            config = start.model.config
            if settings.shape(config) != config:
                raise SlmxError(
                    f"{start.folder}: has its own shape; leave out --block-size, --n-layer, --n-head, --n-embd"
                )
        else:
            config = settings.shape(replace(self.preset.config, vocab_size=self.tokenizer.vocab_size))
        self.dataset.train.windows(config.block_size, 1)
        if saved is None:
            self.plan = make_plan(settings, self.preset, config, self.dataset.train)
        else:
            self.plan = Plan.from_dict(saved.record["plan"])
            self.plan.check(settings, saved.folder)
        self._split_batch()
        torch.manual_seed(self.plan.seed)
        self.model = GPT(config, self.plan.dropout)
        if start is not None:
            self.model.load_state_dict(start.model.state_dict())
        self.model.to(self.accelerator.device)
        optimizers = build_optimizers(self.model, self.plan)
        self.step = 0
        self.seconds = 0.0
        self.curve: list[dict[str, float]] = []
        self.origin = None if start is None else _origin(start) if saved is None else saved.record["init"]
        if saved is not None:
            self._restore(saved, optimizers)
        self.optimizers = [self.accelerator.prepare_optimizer(optimizer) for optimizer in optimizers]
        self.net = self.accelerator.prepare_model(StoryLoss(self.model))

    def _open_data(self, stored: dict[str, Any]) -> Dataset:
        settings = self.settings
        data = settings.data or (stored["data"],)
        if len(data) == 1 and is_dataset(data[0]):
            if settings.valid:
                raise SlmxError(f"{data[0]}: holds its own validation side; give --valid to slmx prepare")
            return Dataset.open(Path(data[0]))
        wanted = PrepareSettings(
            sources=data,
            preset=self.preset.name,
            out=settings.out / "data",
            valid=settings.valid,
            licence=settings.licence or "not stated",
            tokenizer=None if settings.init is None else find_checkpoint(settings.init),
        )
        return prepare(wanted, self.console)

    def _split_batch(self) -> None:
        parts = self.accelerator.num_processes * self.plan.accumulate
        if self.plan.batch_size % parts:
            raise SlmxError(
                f"a batch of {self.plan.batch_size} does not split into {self.plan.accumulate} accumulated parts "
                f"on {self.accelerator.num_processes} processes; choose a --batch-size that {parts} divides"
            )
        self.part_size = self.plan.batch_size // parts

    def _restore(self, saved: Checkpoint, optimizers: list[torch.optim.Optimizer]) -> None:
        if saved.record["dataset_sha256"] != sha256_of(self.dataset.folder / DATASET_FILE):
            raise SlmxError(f"{saved.folder}: the run was made from other data; resume with the same")
        self.step = saved.record["steps_done"]
        state = saved.folder / OPTIMIZER_FILE
        try:
            if self.step:
                restore_optimizers(self.model, optimizers, load_file(state))
        except (OSError, SafetensorError, KeyError) as error:
            raise SlmxError(f"{state}: cannot read ({error}); delete {saved.folder} to resume from before") from error
        self.seconds = saved.record["seconds"]
        self.curve = saved.record["curve"]
        if self.is_main:
            self.folder.forget_after(self.step)
        self.console.print(f"resumed at step {self.step} of {self.plan.steps}")

    def record(self) -> dict[str, Any]:
        """The training record: data, licence, plan, tokens seen, loss curve, bits per byte."""
        return {
            "data": self.dataset.record["sources"],
            "dataset_sha256": sha256_of(self.dataset.folder / DATASET_FILE),
            "licence": self.settings.licence or self.dataset.record["licence"],
            "init": self.origin,
            "plan": asdict(self.plan),
            "parameters": self.model.config.parameters,
            "training_tokens": len(self.dataset.train.ids),
            "validation_tokens": len(self.dataset.valid.ids),
            "steps_done": self.step,
            "tokens_seen": self.step * self.tokens_per_step,
            "seconds": round(self.seconds, 3),
            "precision": "bfloat16" if self.accelerator.mixed_precision == "bf16" else "float32",
            "device": self.accelerator.device.type,
            "processes": self.accelerator.num_processes,
            "torch": torch.__version__,
            "best": min(self.curve, key=lambda point: point["bits_per_byte"], default=None),
            "curve": self.curve,
        }

    @property
    def tokens_per_step(self) -> int:
        """Tokens in a batch."""
        return self.plan.batch_size * self.model.config.block_size

    def save_step(self) -> None:
        """Write the numbered checkpoint of this step."""
        if not self.is_main:
            return
        with self.folder.new_step(self.step) as folder:
            self._write(folder, torch.float32)
            save_tensors(optimizer_tensors(self.model, self._inner_optimizers()), folder / OPTIMIZER_FILE)

    def _inner_optimizers(self) -> list[torch.optim.Optimizer]:
        return [optimizer.optimizer for optimizer in self.optimizers]

    def _write(self, folder: Path, dtype: torch.dtype) -> None:
        save_checkpoint(folder, self.preset.name, self.model, self.tokenizer, self.merges, self.record(), dtype)

    def run(self) -> bool:
        """Train to the last step; returns False when Ctrl-C or SIGTERM ended it early, with the step saved."""
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"))
        with (
            _stop_flag() as stop,
            Progress(*columns, TimeRemainingColumn(), console=self.console) as progress,
        ):
            bar = progress.add_task("training", total=self.plan.steps, completed=self.step, figures="")
            self.model.train()
            if not self.step and self.is_main:
                data = str(self.dataset.folder.absolute())
                self.folder.write_settings({"data": data, "accumulate": self.plan.accumulate})
                self.save_step()
            self.accelerator.init_trackers(
                "slmx",
                {"preset": self.preset.name} | asdict(self.plan),
                {"wandb": {"dir": str(self.settings.out)}},
            )
            smooth, rate = math.nan, math.nan
            while self.step < self.plan.steps and not self._told(stop) and not self._out_of_patience():
                started = time.perf_counter()
                loss, norm = self._one_step()
                took = time.perf_counter() - started
                self.seconds += took
                smooth = loss if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss
                speed = self.tokens_per_step / took
                rate = speed if math.isnan(rate) else 0.9 * rate + 0.1 * speed
                progress.update(bar, completed=self.step, figures=f"loss {smooth:.3f} · {rate:,.0f} tokens/s")
                if self.step % LOG_EVERY == 0 or self.step == self.plan.steps:
                    self._log(loss, norm, rate)
                if self.step % self.plan.eval_every == 0 or self.step == self.plan.steps:
                    self._evaluate(smooth, rate)
            finished = self.step == self.plan.steps or self._out_of_patience()
            if not finished:
                self.save_step()
        self.accelerator.end_training()
        return finished

    def _out_of_patience(self) -> bool:
        if not self.plan.patience or not self.curve:
            return False
        figures = [point["bits_per_byte"] for point in self.curve]
        return len(figures) - 1 - figures.index(min(figures)) >= self.plan.patience

    def _told(self, stop: list[bool]) -> bool:
        """Whether any process was told to stop: all must leave the loop at the same step."""
        if self.accelerator.num_processes == 1:
            return stop[0]
        flag = torch.tensor(float(stop[0]), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum") > 0)

    def _one_step(self) -> tuple[float, float]:
        """One update; returns the mean loss of the whole batch and the gradient's norm."""
        plan, accelerator = self.plan, self.accelerator
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = plan.learning_rate_at(self.step)
        inputs, targets = batch_at(
            self.dataset.train, self.model.config.block_size, plan.batch_size, plan.seed, self.step
        )
        losses = []
        for part in range(plan.accumulate):
            index = part * accelerator.num_processes + accelerator.process_index
            rows = slice(index * self.part_size, (index + 1) * self.part_size)
            torch.manual_seed(_dropout_seed(plan.seed, self.step, index))
            with accelerator.accumulate(self.net):
                loss = self.net(inputs[rows].to(accelerator.device), targets[rows].to(accelerator.device))
                accelerator.backward(loss)
            losses.append(loss.detach())
        norm = accelerator.clip_grad_norm_(self.model.parameters(), plan.grad_clip)
        figures = torch.stack([torch.stack(losses).mean(), norm.detach()])
        mean_loss, norm_ = accelerator.reduce(figures, "mean").tolist()
        self._stop_unless_finite("loss", mean_loss)
        self._stop_unless_finite("the gradient's norm", norm_)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        return mean_loss, norm_

    def _stop_unless_finite(self, what: str, value: float) -> None:
        if math.isfinite(value):
            return
        starts = window_starts(
            len(self.dataset.train.ids),
            self.model.config.block_size,
            self.plan.batch_size,
            self.plan.seed,
            self.step,
        )
        raise SlmxError(
            f"{what} is {value} at step {self.step} (windows at tokens {', '.join(map(str, starts.tolist()))}); "
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

    def _evaluate(self, smooth: float, rate: float) -> None:
        stream, block_size = self.dataset.valid, self.model.config.block_size
        inputs, targets = stream.windows(block_size, max(1, self.plan.eval_tokens // block_size))
        mine = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        nats = torch.tensor(total_loss(self.model, inputs[mine], targets[mine]), device=self.accelerator.device)
        total = float(self.accelerator.reduce(nats, "sum"))
        loss, figure = total / targets.size, bits_per_byte(total, targets.size, stream.bytes_per_token)
        self._stop_unless_finite("bits per byte", figure)
        best = min((point["bits_per_byte"] for point in self.curve), default=math.inf)
        point = {"step": self.step, "loss": round(smooth, 4), "bits_per_byte": round(figure, 5)}
        self.curve.append(point)
        self._record_metrics({"valid_loss": round(loss, 5), "bits_per_byte": point["bits_per_byte"]})
        if self.is_main:
            if figure < best:
                with self.folder.new_best() as folder:
                    self._write(folder, torch.float16)
            self.save_step()
            stories = sample_stories(
                self.model, self.tokenizer, self.plan.seed, SAMPLES, temperature=SAMPLE_TEMPERATURE
            )
            self.folder.write_samples(self.step, stories)
            plot_curve(self.folder.metrics(), self.settings.out / "loss.png", f"{self.preset.name}")
        self.accelerator.wait_for_everyone()
        mark = "  best so far" if figure < best else ""
        self.console.print(
            f"step {self.step}/{self.plan.steps}  loss {smooth:.3f}  validation {figure:.4f} bits per byte  "
            f"perplexity {math.exp(loss):.2f}  {rate:,.0f} tokens/s{mark}",
            soft_wrap=True,
        )


def _dropout_seed(seed: int, step: int, part: int) -> int:
    return int(np.random.SeedSequence((seed, step, part)).generate_state(1)[0])


def train(settings: TrainSettings, console: Console) -> Summary | None:
    """Train a model in `out`; returns None when Ctrl-C or SIGTERM ended it early, ready to be resumed.

    Raises SlmxError for an unknown preset, unusable data, a run that is there already or does not match.
    """
    started = time.perf_counter()
    trainer = Trainer(settings, console)
    console.quiet = console.quiet or not trainer.is_main
    config, device = trainer.model.config, trainer.accelerator.device
    console.print(
        f"{trainer.preset.name}: {config.parameters:,} parameters, {trainer.plan.steps:,} steps of "
        f"{trainer.tokens_per_step:,} tokens, {device.type}, {trainer.record()['precision']}, "
        f"{trainer.accelerator.num_processes} process(es)"
    )
    finished = trainer.run()
    if not finished:
        return None
    dtype = torch.bfloat16 if trainer.accelerator.mixed_precision == "bf16" else torch.float32
    record = trainer.record()
    summary = Summary(
        preset=trainer.preset.name,
        parameters=config.parameters,
        steps=trainer.step,
        tokens=record["tokens_seen"],
        bits_per_byte=record["best"]["bits_per_byte"],
        training_seconds=trainer.seconds,
        wall_seconds=time.perf_counter() - started,
        flops=record["tokens_seen"] * flops_per_token(config),
        matmul_flops_per_second=matmul_rate(device, dtype) * trainer.accelerator.num_processes,
        peak_memory_bytes=peak_memory(device),
    )
    if trainer.is_main:
        summary.write(settings.out)
    return summary
