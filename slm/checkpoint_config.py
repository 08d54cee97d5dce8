"""The `config.json` of a checkpoint, read without its weights and without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slm.console.errors import SlmxError
from slm.folder_kind import CHECKPOINT_LISTING, HASHED_FILES
from slm.presets import GPTConfig
from slm.storage.hashing import sha256_of_bytes
from slm.storage.json_reader import Fields, parse_json, read_limited
from slm.storage.read_errors import unreadable
from slm.tokenizers.settings import TokenizerSettings

FORMAT_VERSION = 1
CONFIG_FILE = CHECKPOINT_LISTING.file
MAX_CONFIG_BYTES = 2**20


@dataclass(frozen=True)
class CheckpointConfig:
    """A `config.json`: its own SHA-256, the preset, the shape, the tokenizer settings, and the SHA-256 of the files."""

    sha256: str
    preset: str
    shape: GPTConfig
    tokenizer: TokenizerSettings
    hashes: Mapping[str, str]


def read_config(checkpoint: Path) -> CheckpointConfig:
    """Reads the `config.json` in the folder of a checkpoint from an untrusted source.

    Raises:
        SlmxError: It cannot be read, is damaged or is of a newer format.
    """
    path = checkpoint / CONFIG_FILE
    try:
        content = read_limited(path, MAX_CONFIG_BYTES)
        fields = Fields(parse_json(content))
        version = fields.integer("format_version")
        if version != FORMAT_VERSION:
            raise SlmxError(f"{path}: checkpoint format {version}, this slmx reads {FORMAT_VERSION}; upgrade slmx")
        hashes = fields.object(CHECKPOINT_LISTING.key)
        return CheckpointConfig(
            sha256_of_bytes(content),
            fields.name("preset"),
            GPTConfig.from_dict(fields.value("shape"), str(path)),
            TokenizerSettings.read(fields),
            {name: hashes.sha256(name) for name in HASHED_FILES},
        )
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise SlmxError(
            f"{path}: not the {CONFIG_FILE} of a slmx checkpoint ({error}); copy the folder again"
        ) from None
