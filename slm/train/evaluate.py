"""Loss, perplexity and bits per byte of a text; bits per byte alone compares across vocabularies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from slm.checkpoint import Checkpoint
from slm.data.corpus import TokenStream, encode_stories
from slm.data.dataset import Dataset, is_dataset
from slm.data.sources import read_stories
from slm.errors import SlmxError
from slm.metrics import bits_per_byte
from slm.model import GPT


@dataclass(frozen=True)
class Evaluation:
    """What a model makes of a text: nats per token, and over how many predicted tokens."""

    loss: float
    bits_per_byte: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """The exponential of the loss; infinite where that overflows."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


@torch.inference_mode()
def total_loss(model: GPT, inputs: npt.NDArray[np.int64], targets: npt.NDArray[np.int64], batch_size: int = 8) -> float:
    """Nats of all predictions of windows, int64 [windows, block_size] twice, in float32 and without dropout."""
    device = model.wte.weight.device
    was_training = model.training
    model.eval()
    nats = 0.0
    for start in range(0, len(inputs), batch_size):
        logits = model(torch.from_numpy(inputs[start : start + batch_size]).to(device))
        expected = torch.from_numpy(targets[start : start + batch_size]).to(device)
        nats += float(F.cross_entropy(logits.flatten(0, 1).float(), expected.flatten(), reduction="sum"))
    model.train(was_training)
    return nats


def evaluate(model: GPT, stream: TokenStream, max_windows: int | None = None, batch_size: int = 8) -> Evaluation:
    """Read a stream in whole windows of one context side by side, each without memory of the one before."""
    inputs, targets = stream.windows(model.config.block_size, max_windows)
    nats = total_loss(model, inputs, targets, batch_size)
    return Evaluation(nats / targets.size, bits_per_byte(nats, targets.size, stream.bytes_per_token), targets.size)


def read_stream(data: Sequence[str], checkpoint: Checkpoint) -> TokenStream:
    """The validation side of a prepared data set, or every story of the sources, as the checkpoint's own ids.

    Raises SlmxError for unusable sources and for a data set with another tokenizer.
    """
    if len(data) == 1 and is_dataset(data[0]):
        dataset = Dataset.open(Path(data[0]))
        if dataset.tokenizer.ranks != checkpoint.tokenizer.ranks:
            raise SlmxError(f"{data[0]}: has another tokenizer than {checkpoint.folder}; give --data the text itself")
        return dataset.valid
    return encode_stories(list(read_stories(data)), checkpoint.tokenizer)
