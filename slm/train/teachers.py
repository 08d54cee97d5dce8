"""Teachers: finished models whose predictions a run learns in place of the text's own tokens."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from slm.checkpoint import CONFIG_FILE, Checkpoint
from slm.console.errors import SlmxError
from slm.model import GPT
from slm.presets import GPTConfig
from slm.provenance import licence_of
from slm.storage.hashing import sha256_of
from slm.tokenizers.tokenizer import Tokenizer


class MeanLogits(nn.Module):
    """Several models as one, whose logits are the mean of theirs.

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


def check_teachers(teachers: Sequence[Checkpoint], tokenizer: Tokenizer, config: GPTConfig) -> None:
    """Checks that a model can learn the predictions of its teachers.

    Args:
        teachers: The teachers.
        tokenizer: The tokenizer of the training text.
        config: The shape of the model.

    Raises:
        SlmxError: A teacher has another tokenizer, or a shorter context than the model.
    """
    for teacher in teachers:
        if teacher.tokenizer != tokenizer:
            raise SlmxError(
                f"{teacher.folder}: a teacher needs the tokenizer of the training text; "
                f"prepare the text with --tokenizer {shlex.quote(str(teacher.folder))}"
            )
        if teacher.model.config.block_size < config.block_size:
            raise SlmxError(
                f"{teacher.folder}: a teacher needs a context of at least {config.block_size} tokens, "
                f"not {teacher.model.config.block_size}; lower --block-size"
            )


def teacher_record(teacher: Checkpoint) -> dict[str, str]:
    """Returns what a training record says of a teacher: its preset, the hash of its configuration, and its licence.

    The configuration lists the hashes of the weights and of the tokenizer. A licence that is not stated is left out.
    """
    licence = licence_of(teacher.record)
    stated = {} if licence is None else {"licence": licence}
    return {"preset": teacher.preset, "config_sha256": sha256_of(teacher.folder / CONFIG_FILE), **stated}
