"""What the machine can do for training: devices, precision, compiler, memory and the order of additions."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from torch._dynamo.exc import TorchDynamoException
from torch._inductor.runtime.cache_dir_utils import cache_dir
from torch.utils import deterministic

from slm.console.errors import SlmxError
from slm.train.plan import TrainSettings

# Parameters of mallopt(3), from glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def has_bf16(device: torch.device) -> bool:
    """Returns whether the hardware multiplies bf16 itself. Emulated bf16 is many times slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def device_name(device: torch.device) -> str:
    """Returns what a training record calls a device: "cuda (NVIDIA H200)" for a GPU, else its type, such as "cpu"."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def keep_freed_memory() -> None:
    """Makes glibc keep freed memory for this process.

    Every training step allocates the same large blocks. Fresh pages from the system would cost a tenth of the step.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


class CompileError(SlmxError):
    """torch.compile failed."""


@contextmanager
def compiling() -> Iterator[None]:
    """Turns a failure of torch.compile into one line, and keeps signals from the C++ compiler.

    Ctrl-C on a terminal goes to the compiler too. It would leave an incomplete library in PyTorch's cache, and every
    later run that reads it would fail.

    Raises:
        CompileError: torch.compile failed.
    """
    names = {"SIGINT", "SIGTERM", "SIGHUP"}
    blocked = {getattr(signal, name) for name in names if hasattr(signal, name)}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked) if hasattr(signal, "pthread_sigmask") else None
    try:
        yield
    except TorchDynamoException as error:
        reason = " ".join(str(error.__cause__ or error).split())[-300:]
        raise CompileError(
            f"torch.compile failed (... {reason}); add --no-compile. If it worked here before, delete its cache, "
            f"{cache_dir()}, while no training runs"
        ) from error
    finally:
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def repeatable_sums(device: torch.device) -> Iterator[None]:
    """Makes a CPU add floating-point numbers in the same order in every run, inside the block.

    The compiled backward pass of the token table adds the gradients of equal ids with atomic additions. Two threads
    reach a row of the table in a different order in each run, so the last bits of its sum differ. In PyTorch's
    deterministic mode the compiler calls a kernel that adds in order. Other devices are not changed: their
    deterministic mode is slow, and it refuses operations.

    The mode belongs to the whole process. Two threads must not use this at the same time.
    """
    if device.type != "cpu":
        yield
        return
    mode = torch.are_deterministic_algorithms_enabled()
    fill = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True)
    # Filling only helps to find reads of uninitialized memory, and it costs time.
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode)
        deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def why_not_compiled() -> str | None:
    """Returns why torch.compile does not work here, or None.

    PyTorch does not quote its own path in the commands that it gives to the linker.
    """
    if shutil.which("c++") is None:
        return "no C++ compiler (c++) is on PATH"
    home = Path(torch.__file__).parent
    return f"PyTorch is in a path with a space, {home}" if re.search(r"\s", str(home)) else None


def is_first_process() -> bool:
    """Returns whether this is the only process of a run or the first one, by the variable of torch's launchers."""
    return int(os.environ.get("RANK", "0")) == 0


def make_accelerator(settings: TrainSettings, accumulate: int) -> Accelerator:
    """Sets up the devices and processes that the launcher gave, in the precision that the settings ask for.

    Args:
        settings: The settings of the run.
        accumulate: The number of parts that a batch is computed in.

    Raises:
        SlmxError: The settings ask for bf16 and the hardware emulates it, or a tracker is unknown.
    """
    compiled = settings.compile is not False and why_not_compiled() is None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bf16 = settings.precision == "bf16" or (settings.precision in (None, "auto") and has_bf16(device))
    if bf16 and not has_bf16(device):
        raise SlmxError(f"--precision bf16: this {device.type} does not multiply bf16; leave the option out")
    if device.type == "cpu":
        keep_freed_memory()
    try:
        return Accelerator(
            cpu=device.type == "cpu",
            mixed_precision="bf16" if bf16 else "no",
            gradient_accumulation_steps=accumulate,
            dynamo_backend="inductor" if compiled else "no",
            log_with=list(settings.track) or None,
            project_dir=str(settings.out),
        )
    except (ValueError, ImportError) as error:
        what = f"--track {' '.join(settings.track)}" if settings.track else "cannot set up the devices"
        raise SlmxError(f"{what}: {error}") from error
