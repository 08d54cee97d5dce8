"""Averages the weights of several models from the same training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from slm.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, stored_type
from slm.console.errors import SlmxError, UsageError
from slm.folder_kind import CHECKPOINT_LISTING, check_outside
from slm.model import GPT
from slm.storage.atomic import atomic_folder
from slm.train.evaluate import Evaluation, evaluate, read_stream
from slm.train.qat import as_exported, trained_for


def average_checkpoints(checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """Averages the weights of checkpoints (Izmailov et al., 2018, arXiv:1803.05407).

    The mean of models from one training is often better than each of them.

    Args:
        checkpoints: Those that `check_alike` accepts. The model of the last one gets the mean weights.

    Returns:
        The last checkpoint.
    """
    states = [checkpoint.model.state_dict() for checkpoint in checkpoints]
    mean = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    last = checkpoints[-1]
    last.model.load_state_dict(mean)
    return last


def check_alike(checkpoints: Sequence[Checkpoint]) -> None:
    """Checks that checkpoints have a mean.

    Raises:
        UsageError: There are fewer than two, or two are the same.
        SlmxError: A checkpoint has another shape or tokenizer than the last.
    """
    if len(checkpoints) < 2:
        raise UsageError("one checkpoint has no mean: name two or more")
    named: dict[str, Path] = {}
    for checkpoint in checkpoints:
        if (same := named.get(checkpoint.config_sha256)) is not None:
            raise UsageError(f"{checkpoint.folder}: the same checkpoint as {same}; name each one once")
        named[checkpoint.config_sha256] = checkpoint.folder
    last = checkpoints[-1]
    for other in checkpoints[:-1]:
        if other.model.config != last.model.config or other.tokenizer != last.tokenizer:
            raise SlmxError(
                f"{other.folder}: has another shape or tokenizer than {last.folder}; name checkpoints of one run"
            )


def verdict(mean: Evaluation, each: Sequence[Evaluation], names: Sequence[Path]) -> tuple[str, Path | None]:
    """Compares a mean with its members, as the figures are shown.

    Returns:
        A few words, and the member that is better than the mean, if one is.
    """
    best = min(range(len(each)), key=lambda number: each[number].bits_per_byte)
    whole, alone = (round(one.bits_per_byte, 4) for one in (mean, each[best]))
    if whole == alone:
        return f"as good as {names[best]} alone", None
    return ("better than each of them", None) if whole < alone else (f"{names[best]} alone is better", names[best])


def write_average(
    folders: Sequence[Path], text: Sequence[str], out: Path, force: bool, console: Console
) -> tuple[Evaluation, list[Evaluation]]:
    """Writes the mean of checkpoints as a checkpoint in float16, evaluated on a text beside each of them.

    Its training record is that of the last checkpoint, with the hashes of all and the new result. If the last one was
    trained for a variant, all are read in this variant.

    Args:
        folders: Checkpoints or runs.
        text: A prepared data set (its validation split), or sources.
        out: The folder of the new checkpoint.
        force: Whether to replace what slmx wrote to `out` before.
        console: Where progress goes.

    Returns:
        The evaluation of the mean, and those of the checkpoints, in their order.

    Raises:
        SlmxError: A checkpoint or the text cannot be used, or `out` cannot be written, or is inside a folder of slmx.
    """
    check_outside(out)
    with atomic_folder(out, CHECKPOINT_LISTING, replace=force) as folder:
        checkpoints = [load_checkpoint(path) for path in folders]
        check_alike(checkpoints)
        stream = read_stream(text, checkpoints[-1])
        variant = trained_for(checkpoints[-1].record)

        def evaluated(model: GPT, name: str) -> Evaluation:
            with as_exported(model, variant):
                return evaluate(model, stream, console, name)

        each = [evaluated(checkpoint.model, str(path)) for checkpoint, path in zip(checkpoints, folders, strict=True)]
        average = average_checkpoints(checkpoints)
        average.model.to(stored_type(average.model, torch.float16)).float()  # evaluated with the values that are stored
        result = evaluated(average.model, "the mean")
        if not math.isfinite(result.bits_per_byte):
            raise SlmxError(
                f"{folders[-1]}: the mean has no finite bits per byte; slmx evaluate finds the bad checkpoint"
            )
        best = {"step": average.record.get("steps_done", 0), "bits_per_byte": round(result.bits_per_byte, 5)}
        curve = average.record.get("curve")
        record: dict[str, Any] = average.record | {
            "average_of": [checkpoint.config_sha256 for checkpoint in checkpoints],
            "best": best,
            "curve": [*(curve if isinstance(curve, list) else []), best],
        }
        save_checkpoint(folder, average.preset, average.model, average.tokenizer, average.merges, record, torch.float16)
    return result, each
