"""A whole run: its lock, its trainer, the line before the first step, and the figures after the last."""

from __future__ import annotations

import time
from contextlib import nullcontext

import torch
from rich.console import Console

from slm.console.counted import counted
from slm.console.notice import print_notice
from slm.console.signals import StopFlag
from slm.storage.locks import clear_leftovers, lock_folder
from slm.train.hardware import is_first_process
from slm.train.loop import Trainer
from slm.train.memory import naming_shortages
from slm.train.plan import TrainSettings
from slm.train.summary import Summary, flops_per_token, matmul_rate, peak_memory


def train(settings: TrainSettings, console: Console, stop: StopFlag | None = None) -> Summary | None:
    """Trains a model in the folder `settings.out`.

    Args:
        settings: What the user asks for.
        console: Where messages and progress go.
        stop: Has the number of the signal that ended the run early.

    Returns:
        The figures of the run, or None if Ctrl-C, SIGTERM or SIGHUP ended it early. It can be resumed then.

    Raises:
        SlmxError: The settings, the data or a checkpoint cannot be used, `settings.out` holds another run or is
            being written by another process, or the run cannot go on.
    """
    first = is_first_process()
    with lock_folder(settings.out) if first else nullcontext(), naming_shortages(settings):
        if first:
            clear_leftovers(settings.out)
        return _train(settings, console, stop or StopFlag())


def _train(settings: TrainSettings, console: Console, stop: StopFlag) -> Summary | None:
    started = time.perf_counter()
    trainer = Trainer(settings, console)
    config, device = trainer.model.config, trainer.accelerator.device
    print_notice(
        console,
        f"{trainer.preset}: {config.parameters:,} parameters, {counted(trainer.plan.steps, 'step')} of "
        f"{trainer.tokens_per_step:,} tokens, {device.type}, {trainer.record()['precision']}, "
        f"{counted(trainer.accelerator.num_processes, 'process', 'processes')}",
    )
    if not trainer.run(stop):
        return None
    dtype = torch.bfloat16 if trainer.accelerator.mixed_precision == "bf16" else torch.float32
    record = trainer.record()
    shapes = [each.checkpoint.model.config for each in trainer.teachers] or [config] * (trainer.plan.qat is not None)
    summary = Summary(
        preset=trainer.preset,
        parameters=config.parameters,
        steps=trainer.step,
        tokens=record["tokens_seen"],
        bits_per_byte=record["best"]["bits_per_byte"],
        training_seconds=trainer.seconds,
        wall_seconds=time.perf_counter() - started,
        flops=record["tokens_seen"] * flops_per_token(config, shapes),
        matmul_flops_per_second=matmul_rate(device, dtype) * trainer.accelerator.num_processes,
        peak_memory_bytes=peak_memory(device),
    )
    if trainer.is_main:
        summary.write(settings.out)
    return summary
