"""A checkpoint: a folder with weights in safetensors, the shape, the tokenizer and the training record.

Its `config.json` lists the SHA-256 of the other files. No file is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from slm.checkpoint_config import CONFIG_FILE, FORMAT_VERSION, read_config
from slm.console.errors import SlmxError
from slm.folder_kind import find_checkpoint
from slm.model import GPT
from slm.storage.file_names import RECORD_FILE, WEIGHTS_FILE
from slm.storage.hashing import sha256_of
from slm.storage.json_reader import Fields, read_json
from slm.storage.listing import check_file, not_replaced
from slm.storage.read_errors import reason_of, unreadable
from slm.tokenizers.tokenizer import Tokenizer
from slm.tokenizers.tokenizer_json import load_merges

LARGEST_HALF = torch.finfo(torch.float16).max
# The record of a fine-tuned model contains the record of the model that it started from, and so on.
MAX_RECORD_BYTES = 2**28
MAX_RECORD_DEPTH = 200


@dataclass(frozen=True)
class Checkpoint:
    """A model with its tokenizer and its training record.

    Attributes:
        folder: Where it was read from. The folder can change later, as the best checkpoint of a run does.
        config_sha256: The SHA-256 of the `config.json` that was read. It lists the hashes of the other files.
        hashes: The SHA-256 of the other files that were read, by name.
        preset: Name of its shape. It is a plain name, so a folder can have it.
        model: The model, in float32.
        tokenizer: Its tokenizer.
        merges: The tokenizer's merges in the order they were learned.
        record: The content of `training.json`.
    """

    folder: Path
    config_sha256: str
    hashes: Mapping[str, str]
    preset: str
    model: GPT
    tokenizer: Tokenizer
    merges: list[tuple[str, str]]
    record: dict[str, Any]


def stored_type(model: GPT, dtype: torch.dtype) -> torch.dtype:
    """Returns the type in which `save_checkpoint` stores weights: `dtype`, or float32 if float16 cannot hold one."""
    if dtype is torch.float16 and any(
        float(tensor.abs().max()) > LARGEST_HALF for tensor in model.state_dict().values()
    ):
        return torch.float32
    return dtype


def save_checkpoint(
    folder: Path,
    preset: str,
    model: GPT,
    tokenizer: Tokenizer,
    merges: list[tuple[str, str]],
    record: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes a checkpoint.

    Args:
        folder: An existing folder. Other files that it holds are hashed too.
        preset: Name of the shape. It must pass `slm.storage.json_reader.is_plain_name`.
        model: The model.
        tokenizer: Its tokenizer.
        merges: The tokenizer's merges in the order they were learned.
        record: The training record, for `training.json`.
        dtype: The type that the weights are stored in. float16 becomes float32 if it cannot hold a weight.

    Raises:
        OSError: The files cannot be written.
    """
    dtype = stored_type(model, dtype)
    save_tensors({name: tensor.to(dtype) for name, tensor in model.state_dict().items()}, folder / WEIGHTS_FILE)
    tokenizer.save(folder, merges)
    (folder / RECORD_FILE).write_text(json.dumps(record, indent=1) + "\n", "utf-8", newline="\n")
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name != CONFIG_FILE]
    config = {
        "format_version": FORMAT_VERSION,
        "preset": preset,
        "shape": model.config.to_dict(),
        "parameters": model.config.parameters,
        **tokenizer.settings.listed(),
        "sha256": {path.name: sha256_of(path) for path in files},
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n", "utf-8", newline="\n")


def save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Writes a safetensors file, with the permissions of any other new file.

    Args:
        tensors: The tensors by name, on any device.
        path: The file.

    Raises:
        OSError: The file cannot be written.
    """
    path.write_bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))


def load_checkpoint(folder: Path) -> Checkpoint:
    """Reads and checks a checkpoint from an untrusted source.

    Args:
        folder: A checkpoint, a training run, or the name of a checkpoint that ships. The best checkpoint of a run is
            read, or the newest if there is no best.

    Returns:
        The checkpoint. Its model is in float32 and in evaluation mode.

    Raises:
        SlmxError: The path is of another kind, a file is missing, altered, damaged or of a newer format, or another
            checkpoint took the place of the folder meanwhile. The message names it.
    """
    folder = find_checkpoint(folder)
    config = read_config(folder)
    with not_replaced(folder / CONFIG_FILE, config.sha256, "checkpoint"):
        for name, digest in config.hashes.items():
            check_file(folder / name, digest, CONFIG_FILE)
        path = folder / WEIGHTS_FILE
        tensors = read_tensors(path)
        stored_parameters = sum(tensor.numel() for tensor in tensors.values())
        if stored_parameters != config.shape.parameters:
            raise SlmxError(
                f"{path}: does not fit the shape in {CONFIG_FILE} "
                f"({stored_parameters:,} parameters, expected {config.shape.parameters:,}); copy the folder again"
            )
        model = GPT(config.shape)
        try:
            model.load_state_dict(tensors)
        except RuntimeError as error:
            reason = reason_of(error)
            raise SlmxError(
                f"{path}: does not fit the shape in {CONFIG_FILE} ({reason}); copy the folder again"
            ) from None
        tokenizer = Tokenizer.load(folder, config.tokenizer)
        if tokenizer.vocab_size != config.shape.vocab_size:
            raise SlmxError(
                f"{folder}: {tokenizer.vocab_size} tokens in the tokenizer, {config.shape.vocab_size} in the model; "
                "copy the folder again"
            )
        merges, record = load_merges(folder), _read_record(folder / RECORD_FILE)
        return Checkpoint(folder, config.sha256, config.hashes, config.preset, model.eval(), tokenizer, merges, record)


def read_tensors(path: Path, unused: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
    """Reads a safetensors file from an untrusted source.

    Args:
        path: The file.
        unused: Endings of the names of tensors that are left out.

    Returns:
        The tensors by name, in float32.

    Raises:
        SlmxError: The file cannot be read or is damaged, or a tensor is not a float tensor or holds NaN or infinity.
            The message names the tensor.
    """
    try:
        stored = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise SlmxError(f"{path}: not a whole safetensors file ({reason_of(error)}); copy it again") from None
    tensors = {name: tensor for name, tensor in stored.items() if not name.endswith(unused)}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise SlmxError(
                f"{path}: {name[:80]!a} is {tensor.dtype}, not a float tensor; slmx reads float weights only"
            )
        tensors[name] = tensor.float()
        refuse_infinite(path, name, tensors[name], "use weights from before the training went wrong")
    return tensors


def refuse_infinite(path: Path, name: str, tensor: torch.Tensor, advice: str) -> None:
    """Raises SlmxError if a tensor of a file has a number that is NaN or infinite."""
    if not bool(tensor.isfinite().all()):
        raise SlmxError(f"{path}: {name[:80]!a} holds NaN or infinity; {advice}")


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = read_json(path, MAX_RECORD_BYTES, MAX_RECORD_DEPTH)
        _check_record(Fields(record))
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise SlmxError(f"{path}: not a training record ({error}); copy the folder again") from None
    assert isinstance(record, dict)
    return record


def _check_record(record: Fields) -> None:
    """Raises ValueError if a value that slmx reads from a training record, or from one in it, has another type."""
    record.optional("tokens_seen", record.integer)
    record.optional("steps_done", record.integer)
    for source in record.optional("data", record.objects) or ():
        source.value("file")
    if (plan := record.optional("plan", record.object)) is not None:
        plan.optional("seed", plan.integer)
        plan.optional("steps", plan.integer)
        plan.optional("qat", plan.text)
    for teacher in record.optional("teachers", record.objects) or ():
        teacher.text("preset")
        teacher.text("config_sha256")
        teacher.optional("licence", teacher.text)
    if (best := record.optional("best", record.object)) is not None:
        best.optional("bits_per_byte", best.number)
    origin = record.optional("init", record.value)
    before = origin.get("record") if isinstance(origin, dict) else None
    if isinstance(before, dict):
        _check_record(Fields(before, "init.record"))
