"""The shape of a checkpoint, read without its weights and without PyTorch."""

from __future__ import annotations

from pathlib import Path

from slm.console.errors import SlmxError
from slm.folder_kind import CHECKPOINT_LISTING, MAX_JSON_BYTES
from slm.presets import GPTConfig
from slm.storage.json_reader import Fields, read_json
from slm.storage.read_errors import unreadable


def read_shape(checkpoint: Path) -> GPTConfig:
    """Returns the shape of the model in the folder of a checkpoint.

    Raises:
        SlmxError: Its `config.json` cannot be read or is damaged.
    """
    path = checkpoint / CHECKPOINT_LISTING.file
    try:
        return GPTConfig.from_dict(Fields(read_json(path, MAX_JSON_BYTES)).value("shape"), str(path))
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise SlmxError(f"{path}: damaged ({error}); copy the folder again") from None
