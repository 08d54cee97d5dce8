"""Teachers are finished models. A run learns their predictions in place of the tokens of its text."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from slm.checkpoint import Checkpoint, load_checkpoint
from slm.console.errors import SlmxError
from slm.model import GPT
from slm.presets import GPTConfig
from slm.provenance import licence_of
from slm.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class Teacher:
    """A teacher as it was when it was loaded.

    Attributes:
        checkpoint: The checkpoint.
        record: What the training record says of it: its preset, the hash of its configuration, and its licence if one
            is stated.
    """

    checkpoint: Checkpoint
    record: dict[str, str]

    @classmethod
    def load(cls, folder: Path) -> Teacher:
        """Loads a teacher from a checkpoint or a training run; SlmxError if it cannot be read."""
        checkpoint = load_checkpoint(folder)
        licence = licence_of(checkpoint.record)
        stated = {} if licence is None else {"licence": licence}
        record = {"preset": checkpoint.preset, "config_sha256": checkpoint.config_sha256, **stated}
        return cls(checkpoint, record)


class MeanLogits(nn.Module):
    """One model that is made of several. Its logits are the mean of theirs.

    The probabilities are those of the models' geometric mean (Hinton, 2002, "products of experts").

    Args:
        models: The models, of one vocabulary.
    """

    def __init__(self, models: Sequence[GPT]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, ids: Tensor) -> Tensor:
        """Returns float32 logits [batch, sequence, vocabulary] for ids int64 [batch, sequence]."""
        return torch.stack([model(ids).float() for model in self.models]).mean(0)


def check_teachers(teachers: Sequence[Teacher], start: Checkpoint | None, config: GPTConfig) -> None:
    """Checks that one model can learn the predictions of all its teachers.

    Args:
        teachers: The teachers.
        start: The checkpoint that the model starts from, or None for a new model.
        config: The shape of the model.

    Raises:
        SlmxError: Two of the checkpoints have different tokenizers, or a teacher has a shorter context than the model.
    """
    together = [teacher.checkpoint for teacher in teachers]
    first = start or next(iter(together), None)
    for other in together:
        if first is not None and other.tokenizer != first.tokenizer:
            raise SlmxError(
                f"{other.folder}: has another tokenizer than {first.folder}; "
                "a model and its teachers need the same, so leave one out"
            )
    for teacher in teachers:
        context = teacher.checkpoint.model.config.block_size
        if context < config.block_size:
            raise SlmxError(
                f"{teacher.checkpoint.folder}: a teacher needs a context of at least {config.block_size} tokens, "
                f"not {context}; lower --block-size"
            )


def check_text(teachers: Sequence[Teacher], tokenizer: Tokenizer) -> None:
    """Checks that teachers have the tokenizer of the training text; SlmxError if one has another."""
    for teacher in teachers:
        if teacher.checkpoint.tokenizer != tokenizer:
            folder = teacher.checkpoint.folder
            raise SlmxError(
                f"{folder}: a teacher needs the tokenizer of the training text; "
                f"prepare the text with --tokenizer {shlex.quote(str(folder))}"
            )
