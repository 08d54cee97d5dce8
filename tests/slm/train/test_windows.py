"""The windows that a step reads."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slm.data.corpus import TokenStream
from slm.train.windows import batch_at


@settings(max_examples=60, deadline=None)
@given(st.integers(10, 400), st.integers(2, 9), st.integers(1, 5), st.integers(0, 200))
def test_batches_depend_on_the_step_alone_and_an_epoch_repeats_nothing(
    length: int, block: int, batch: int, step: int
) -> None:
    stream = TokenStream(np.arange(length, dtype=np.uint16), length, 1)
    inputs, targets = batch_at(stream, block, batch, 7, step)
    again, _ = batch_at(stream, block, batch, 7, step)
    assert torch.equal(inputs, again)
    assert inputs.shape == (batch, block)
    assert torch.equal(inputs, inputs[:, :1] + torch.arange(block))
    assert torch.equal(targets, inputs + 1)
    assert int(targets.max()) < length
    per_epoch = max(1, (length - block) // block // batch)
    starts = [int(row[0]) for i in range(per_epoch) for row in batch_at(stream, block, batch, 7, i)[0]]
    if (length - 2 * block) // block >= batch:
        assert len(set(starts)) == len(starts)


def test_epochs_differ_and_reach_every_token() -> None:
    stream = TokenStream(np.arange(203, dtype=np.uint16), 203, 1)
    epochs = [[batch_at(stream, 10, 2, 7, epoch * 9 + i)[0] for i in range(9)] for epoch in range(40)]
    assert not torch.equal(epochs[0][0], epochs[1][0])
    seen = {int(token) for epoch in epochs for rows in epoch for token in rows.flatten()}
    assert seen == set(range(202))
