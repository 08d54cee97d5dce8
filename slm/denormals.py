"""Denormal weights: float32 numbers so near to zero that many processors take many times as long to multiply them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from slm.console.counted import counted

EXPONENT, FRACTION = 0x7F800000, 0x007FFFFF  # of the bits of a float32


def count_denormals(tensor: Tensor) -> int:
    """Returns how many numbers of a float32 tensor are denormal. Their bits are read, so no setting hides them."""
    bits = tensor.contiguous().view(torch.int32)
    return int((((bits & EXPONENT) == 0) & ((bits & FRACTION) != 0)).sum())


def denormals_line(tensors: Mapping[str, Tensor]) -> str | None:
    """Returns a line with the number of denormal weights and the tensor that has most of them; None without any.

    Args:
        tensors: The weights by name, in float32.
    """
    counts = {name: count for name, tensor in tensors.items() if (count := count_denormals(tensor))}
    if not counts:
        return None
    most = max(counts, key=counts.__getitem__)
    number = counted(sum(counts.values()), "weight")
    return (
        f"denormal: {number} below {torch.finfo(torch.float32).tiny:.1e}, most in {most}; "
        "they can make the steps of fp32 and portable slow; int8, q8, int4 and fp16 store zeros"
    )
