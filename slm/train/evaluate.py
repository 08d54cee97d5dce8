"""Loss, perplexity and bits per byte of a model on a text.

Only bits per byte can be compared between models with different vocabularies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from torch.nn import functional as F

from slm.checkpoint import Checkpoint
from slm.console.counted import counted
from slm.console.errors import SlmxError
from slm.console.notice import print_notice
from slm.console.plain_text import as_plain_text
from slm.data.corpus import TokenStream, encode_stories
from slm.data.dataset import Dataset, is_dataset
from slm.data.sources import read_stories
from slm.metrics import bits_per_byte
from slm.model import GPT

BATCH = 8  # windows in one forward pass


@dataclass(frozen=True)
class Evaluation:
    """The result of a model on a text.

    Attributes:
        loss: The mean over all predicted tokens, in nats per token.
        bits_per_byte: The same as bits per UTF-8 byte of the text.
        tokens: The number of predicted tokens.
    """

    loss: float
    bits_per_byte: float
    tokens: int

    @classmethod
    def of(cls, nats: float, tokens: int, stream: TokenStream) -> Evaluation:
        """Returns the result for a sum of nats over `tokens` predicted tokens of a stream."""
        return cls(nats / tokens, bits_per_byte(nats, tokens, stream.bytes_per_token), tokens)

    @property
    def perplexity(self) -> float:
        """The exponential of the loss, or infinity if that is too large for a float."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


@torch.inference_mode()
def total_loss(
    model: GPT,
    inputs: npt.NDArray[np.int64],
    targets: npt.NDArray[np.int64],
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> float:
    """Computes the loss of a model on windows of text, in float32 and without dropout.

    Args:
        model: The model. Its mode, training or evaluation, is the same afterwards.
        inputs: Ids int64 [windows, block_size].
        targets: The id after each id of `inputs`, int64 [windows, block_size].
        progress: Wraps the first window of each batch, as `rich.progress.track` does.

    Returns:
        The sum over all predictions in nats.
    """
    device = model.wte.weight.device
    was_training = model.training
    model.eval()
    nats = 0.0
    for start in progress(range(0, len(inputs), BATCH)):
        logits = model(torch.from_numpy(inputs[start : start + BATCH]).to(device))
        expected = torch.from_numpy(targets[start : start + BATCH]).to(device)
        nats += float(F.cross_entropy(logits.flatten(0, 1).float(), expected.flatten(), reduction="sum"))
    model.train(was_training)
    return nats


def evaluate(
    model: GPT,
    stream: TokenStream,
    console: Console | None = None,
    name: str = "the model",
) -> Evaluation:
    """Evaluates a model on a text that is cut into windows of one context. Each window is evaluated alone.

    Args:
        model: The model.
        stream: The text.
        console: Where progress goes: a bar on a terminal, one line in a log. None for no progress.
        name: What is evaluated, for the progress.

    Raises:
        SlmxError: The text is shorter than one context.
    """
    inputs, targets = stream.windows(model.config.block_size)

    def progress(starts: Sequence[int]) -> Iterable[int]:
        if console is None:
            return starts
        if console.is_terminal:
            return track(starts, f"evaluating {escape(as_plain_text(name))}", console=console, transient=True)
        print_notice(console, f"evaluating {as_plain_text(name)} on {counted(targets.size, 'token')}")
        return starts

    return Evaluation.of(total_loss(model, inputs, targets, progress), targets.size, stream)


def read_stream(text: Sequence[str], checkpoint: Checkpoint) -> TokenStream:
    """Reads a text as the ids of a checkpoint's tokenizer.

    Args:
        text: One prepared data set, of which the validation split is read, or sources, of which all stories are read.
        checkpoint: The checkpoint whose tokenizer is used.

    Raises:
        SlmxError: A source cannot be read, or the data set has another tokenizer.
    """
    if len(text) == 1 and is_dataset(text[0]):
        dataset = Dataset.open(Path(text[0]))
        if dataset.tokenizer != checkpoint.tokenizer:
            raise SlmxError(f"{text[0]}: has another tokenizer than {checkpoint.folder}; give --text the text itself")
        return dataset.valid
    return encode_stories(list(read_stories(text)), checkpoint.tokenizer)
