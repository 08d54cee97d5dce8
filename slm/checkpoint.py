"""A checkpoint is a folder: safetensors, shape, tokenizer, training record; every file hashed, never pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from slm.errors import SlmxError
from slm.hashing import sha256_of
from slm.model import GPT
from slm.presets import GPTConfig
from slm.tokenizer import JSON_FILE, RANKS_FILE, Tokenizer, load_merges

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
RECORD_FILE = "training.json"
HASHED_FILES = (WEIGHTS_FILE, RANKS_FILE, JSON_FILE, RECORD_FILE)
PRETRAINED = Path(__file__).parent / "pretrained"


@dataclass(frozen=True)
class Checkpoint:
    """A trained model with all that belongs to it, read from `folder`."""

    folder: Path
    preset: str
    model: GPT
    tokenizer: Tokenizer
    record: dict[str, Any]

    @property
    def merges(self) -> list[tuple[str, str]]:
        """The tokenizer's merges in the order they were learned."""
        return load_merges(self.folder)


def save_checkpoint(
    folder: Path,
    preset: str,
    model: GPT,
    tokenizer: Tokenizer,
    merges: list[tuple[str, str]],
    record: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a checkpoint into an existing folder, its weights stored as `dtype`; other files there are hashed too."""
    tensors = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    save_tensors(tensors, folder / WEIGHTS_FILE)
    tokenizer.save(folder, merges)
    (folder / RECORD_FILE).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name != CONFIG_FILE]
    config = {
        "format_version": FORMAT_VERSION,
        "preset": preset,
        "shape": asdict(model.config),
        "parameters": model.config.parameters,
        "sha256": {path.name: sha256_of(path) for path in files},
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n", "utf-8")


def save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file with the permissions of any other; OSError when the disk is full."""
    path.write_bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))


def find_checkpoint(folder: Path) -> Path:
    """The checkpoint that a folder is or, for a training run, its best or newest one; SlmxError if there is none."""
    for candidate in (folder, folder / "best", *sorted(folder.glob("step-*"), reverse=True)):
        if (candidate / CONFIG_FILE).is_file():
            return candidate
    raise SlmxError(f"{folder}: no checkpoint here (no {CONFIG_FILE}); make one with slmx train --out {folder}")


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read and check a checkpoint; the model comes back in float32, in eval mode.

    Raises SlmxError naming the file that is missing, truncated, altered or from a newer format.
    """
    folder = find_checkpoint(folder)
    path = folder / CONFIG_FILE
    try:
        stored = json.loads(path.read_text("utf-8"))
        version = stored["format_version"]
        if version != FORMAT_VERSION:
            raise SlmxError(f"{path}: checkpoint format {version}, this slmx reads {FORMAT_VERSION}; upgrade slmx")
        preset, shape, hashes = (stored[key] for key in ("preset", "shape", "sha256"))
        expected = {name: hashes[name] for name in HASHED_FILES}
        config = GPTConfig.from_dict(shape, str(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SlmxError(f"{path}: not a slmx checkpoint ({_first_line(error)})") from error
    for name, digest in expected.items():
        if not (folder / name).is_file():
            raise SlmxError(f"{folder / name}: missing from the checkpoint; copy the folder again, whole")
        try:
            found = sha256_of(folder / name)
        except OSError as error:
            raise SlmxError(f"{folder / name}: cannot read ({error.strerror})") from error
        if found != digest:
            raise SlmxError(f"{folder / name}: truncated or altered (SHA-256 differs); copy the folder again")
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
        stored_parameters = sum(tensor.numel() for tensor in tensors.values())
        if stored_parameters != config.parameters:
            raise SlmxError(
                f"{folder / WEIGHTS_FILE}: does not fit the shape in {CONFIG_FILE} "
                f"({stored_parameters:,} parameters, expected {config.parameters:,})"
            )
        model = GPT(config)
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except (SafetensorError, RuntimeError) as error:
        raise SlmxError(
            f"{folder / WEIGHTS_FILE}: does not fit the shape in {CONFIG_FILE} ({_first_line(error)})"
        ) from error
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size != model.config.vocab_size:
        raise SlmxError(
            f"{folder}: {tokenizer.vocab_size} tokens in the tokenizer, {model.config.vocab_size} in the model"
        )
    try:
        record = json.loads((folder / RECORD_FILE).read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise SlmxError(f"{folder / RECORD_FILE}: not JSON ({_first_line(error)}); copy the folder again") from error
    if not isinstance(record, dict):
        raise SlmxError(f"{folder / RECORD_FILE}: not a training record (no JSON object); copy the folder again")
    return Checkpoint(folder, preset, model.eval(), tokenizer, record)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
