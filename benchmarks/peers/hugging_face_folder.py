"""Writes a checkpoint as a Hugging Face folder, which other converters and slm/importers/hugging_face.py read.

The Conv1D modules of transformers' GPT-2 store the matrices of a block as [in, out]. The head is the token table, so it
is not stored separately. Configuration and tokenizer are those of an exported bundle.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from export.configs import write_configs
from slm.checkpoint import Checkpoint, save_tensors
from slm.importers.hugging_face import CONV1D
from slm.importers.names import LLAMA
from slm.storage.file_names import JSON_FILE, WEIGHTS_FILE


def write_hugging_face_folder(checkpoint: Checkpoint, folder: Path) -> None:
    """Writes config.json, model.safetensors in float32 and the tokenizer into an existing folder."""
    config, state = checkpoint.model.config, checkpoint.model.state_dict()
    if config.rope_theta:
        tensors = {f"model.{name}": tensor for name, tensor in LLAMA.divide(state, config).items()}
    else:
        turned = {name for name in state if name.endswith(".weight") and name.removesuffix(".weight").endswith(CONV1D)}
        tensors = {f"transformer.{name}": tensor.t() if name in turned else tensor for name, tensor in state.items()}
    save_tensors(tensors, folder / WEIGHTS_FILE)
    shutil.copyfile(checkpoint.folder / JSON_FILE, folder / JSON_FILE)
    write_configs(folder, config, checkpoint.tokenizer, None)
