"""What the machine can do for training: its precision, its compiler, its memory, as an accelerate Accelerator."""

from __future__ import annotations

import ctypes
import shutil
import sys

import torch
from accelerate import Accelerator

from slm.errors import SlmxError
from slm.train.plan import TrainSettings

# Parameters of mallopt(3), from glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bf16 itself: emulated on a CPU it is many times slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks: every step takes the same large ones, and fresh pages cost a tenth of it."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def make_accelerator(settings: TrainSettings, accumulate: int) -> Accelerator:
    """The devices and processes that the launcher gave, in the precision asked for.

    Raises SlmxError for bf16 where it is emulated and for a tracker that is unknown or not installed.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bf16 = settings.precision == "bf16" or (settings.precision == "auto" and has_bf16(device))
    if bf16 and not has_bf16(device):
        raise SlmxError(f"--precision bf16: this {device.type} does not multiply bf16; leave the option out")
    if device.type == "cpu":
        keep_freed_memory()
    try:
        return Accelerator(
            cpu=device.type == "cpu",
            mixed_precision="bf16" if bf16 else "no",
            gradient_accumulation_steps=accumulate,
            dynamo_backend="inductor" if settings.compile and shutil.which("c++") else "no",
            log_with=list(settings.track) or None,
            project_dir=str(settings.out),
        )
    except (ValueError, ImportError) as error:
        raise SlmxError(f"--track {' '.join(settings.track)}: {error}") from error
