"""What a run says before its first step: odd choices that it goes on with."""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch

from slm.presets import GPTConfig
from slm.train.hardware import why_not_compiled
from slm.train.plan import TrainSettings

MANY_EPOCHS = 20
BUSY = 0.5  # the share of the cores that other programs can use before a run says so


def remarks(settings: TrainSettings, config: GPTConfig, epochs: float) -> Iterator[str]:
    """Yields a line for each choice that the user may not expect.

    Args:
        settings: What the user asks for.
        config: The shape of the model.
        epochs: How often the whole run reads the training text.
    """
    if settings.compile is not False and (reason := why_not_compiled()):
        yield f"trains without torch.compile, which is slower: {reason}"
    load, cores = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, os.cpu_count() or 1
    if load > BUSY * cores and torch.get_num_threads() > 1 and "OMP_NUM_THREADS" not in os.environ:
        yield (
            f"warning: other programs want {load:.1f} cores (load average) and there are {cores}; the threads of this "
            "run wait for each other then, and OMP_NUM_THREADS=1 before the command can make it faster"
        )
    if epochs > MANY_EPOCHS:
        yield (
            f"warning: this run reads the text {epochs:.0f} times, and a small text is soon learned by heart; "
            "--steps N makes it shorter, --patience 3 ends it when it gets no better"
        )
    if config.head_dim % config.fused_head_multiple:
        yield (
            f"warning: attention heads of {config.head_dim} channels: slmx export needs a multiple of "
            f"{config.fused_head_multiple} (choose another --n-head), or it writes the portable graph only"
        )
