"""One model out of several of the same run or family: the mean of their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from slm.atomic import atomic_folder
from slm.checkpoint import CONFIG_FILE, Checkpoint, load_checkpoint, save_checkpoint
from slm.data.corpus import TokenStream
from slm.errors import SlmxError
from slm.hashing import sha256_of
from slm.ownership import CHECKPOINT
from slm.train.evaluate import Evaluation, evaluate


def average_checkpoints(folders: list[Path]) -> Checkpoint:
    """The last of the checkpoints with the mean weights of all (Izmailov et al., 2018, arXiv:1803.05407).

    It pays for models that one training led to; SlmxError when shapes or tokenizers differ.
    """
    checkpoints = [load_checkpoint(folder) for folder in folders]
    last = checkpoints[-1]
    for other in checkpoints[:-1]:
        if other.model.config != last.model.config or other.tokenizer.ranks != last.tokenizer.ranks:
            raise SlmxError(f"{other.folder}: has another shape or tokenizer than {last.folder}; they have no mean")
    states = [checkpoint.model.state_dict() for checkpoint in checkpoints]
    mean = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    last.model.load_state_dict(mean)
    return last


def write_average(folders: list[Path], stream: TokenStream, out: Path) -> Evaluation:
    """Write the mean of checkpoints as one in float16, judged on a text; its record names what it is made of."""
    average = average_checkpoints(folders)
    with atomic_folder(out, CHECKPOINT) as folder:
        average.model.half().float()  # judged as it is stored
        result = evaluate(average.model, stream)
        best = {"step": average.record["steps_done"], "bits_per_byte": round(result.bits_per_byte, 5)}
        made_of = [sha256_of(load_checkpoint(path).folder / CONFIG_FILE) for path in folders]
        record: dict[str, Any] = average.record | {
            "average_of": made_of,
            "best": best,
            "curve": [*average.record["curve"], best],
        }
        save_checkpoint(folder, average.preset, average.model, average.tokenizer, average.merges, record, torch.float16)
    return result
