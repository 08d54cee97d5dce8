"""Chooses the windows of the text that a training step reads. They depend on the seed and the step alone."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from slm.data.corpus import TokenStream


@lru_cache(maxsize=2)
def _epoch_order(length: int, block_size: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Returns the start of every window of an epoch, shuffled. Each epoch cuts the windows at another offset."""
    rng = np.random.default_rng((seed, epoch))
    offset = int(rng.integers(min(block_size, length - block_size)))
    return offset + block_size * rng.permutation((length - 1 - offset) // block_size)


def window_starts(length: int, block_size: int, batch_size: int, seed: int, step: int) -> npt.NDArray[np.int64]:
    """Returns the position of the first token of each window in the batch of a step, int64 [batch]."""
    per_epoch = max(1, (length - block_size) // block_size // batch_size)
    epoch, index = divmod(step, per_epoch)
    order = _epoch_order(length, block_size, seed, epoch)
    return np.resize(order[index * batch_size : (index + 1) * batch_size], batch_size)


def batch_at(stream: TokenStream, block_size: int, batch_size: int, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Returns the batch of a step: inputs, and targets shifted by one, both int64 [batch, block_size].

    The batch depends on the arguments alone, so a resumed run reads the same batches as an uninterrupted one.
    """
    starts = window_starts(len(stream.ids), block_size, batch_size, seed, step)
    rows = np.stack([stream.ids[start : start + block_size + 1] for start in starts.tolist()])
    ids = torch.from_numpy(rows.astype(np.int64))
    return ids[:, :-1], ids[:, 1:]
