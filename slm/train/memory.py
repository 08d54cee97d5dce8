"""Refuses a run that needs more memory than there is, before anything is made, and names a shortage during a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from slm.console.errors import SlmxError
from slm.memory import memory_bytes
from slm.presets import GPTConfig
from slm.train.plan import TrainSettings

GIB = 2**30
# Bytes of each weight: itself, its gradient and one number of its optimizer. AdamW has two.
WEIGHT_BYTES = 12
# Bytes of each token of a batch: the shard's uint16 and int64.
ID_BYTES = 10
# Bytes of an activation in bf16. In float32 it has twice as many.
ACTIVATION_BYTES = 2
# What PyTorch's allocators say when memory is short: of a CPU on Linux and macOS, on Windows, and of a GPU.
SHORTAGES = ("DefaultCPUAllocator", "not enough memory", "out of memory")
CAUSES = ("batch", "weights")  # what memory is needed for


class ShortageError(SlmxError):
    """There is not enough memory."""


def _advice(settings: TrainSettings, causes: Sequence[str] = CAUSES) -> str:
    """Returns what the user can change about `causes`. The shape of a checkpoint is fixed, and so is a run's plan."""
    if settings.resume:
        return "free some memory, or resume on a machine with more"
    batch, weights = "lower --batch-size or --block-size", "lower --n-layer or --n-embd"
    if settings.init is not None:
        batch, weights = "lower --batch-size", "start from a smaller checkpoint"
    ways = {"batch": f"{batch}, or raise --accumulate", "weights": weights}
    return ", or ".join(ways[cause] for cause in causes)


def check_memory(
    settings: TrainSettings, config: GPTConfig, batch_size: int, accumulate: int, processes: int, device: torch.device
) -> None:
    """Compares the least memory of a run with what is free.

    A run needs more than this estimate, which leaves out whatever depends on the machine.

    Args:
        settings: What the user asks for.
        config: The shape of the model.
        batch_size: Sequences in a step, over all processes.
        accumulate: Parts that a batch is computed in.
        processes: The number of processes.
        device: Where the model is.

    Raises:
        ShortageError: Less is free. The message has both numbers and what to change.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else memory_bytes()
    weights, tokens = WEIGHT_BYTES * config.parameters, batch_size * config.block_size
    kept = config.n_layer * (4 * config.n_embd + config.inner) + config.vocab_size  # for the backward pass
    step = ID_BYTES * tokens + ACTIVATION_BYTES * kept * (tokens // (accumulate * processes))
    if free is None or weights + step <= free:
        return
    raise ShortageError(
        f"this run needs at least {(weights + step) / GIB:,.1f} GiB of memory, and {free / GIB:,.1f} GiB are free: "
        f"{_advice(settings, ('weights' if weights > step else 'batch',))}"
    )


@contextmanager
def naming_shortages(settings: TrainSettings) -> Iterator[None]:
    """Turns a failure to allocate memory inside the block into one line.

    Args:
        settings: What the user asks for.

    Raises:
        ShortageError: There was not enough memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(said in str(error) for said in SHORTAGES):
            raise
        raise ShortageError(f"there is not enough memory for this run: {_advice(settings)}") from error
