"""Writes a checkpoint as a Hugging Face folder, which other converters and slm/importers/hugging_face.py read.

The Conv1D modules of transformers' GPT-2 store the matrices of a block as [in, out]. The head is the token table, so it
is not stored separately. Configuration and tokenizer are those of an exported bundle.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import Tensor

from export.configs import write_configs
from slm.checkpoint import Checkpoint, save_tensors
from slm.importers.hugging_face import CONV1D
from slm.importers.hugging_face_weights import WEIGHTS_FILE
from slm.importers.names import GGUF_LLAMA, LAYER, LLAMA, Names
from slm.presets import GPTConfig
from slm.tokenizer import JSON_FILE


def write_hugging_face_folder(checkpoint: Checkpoint, folder: Path) -> None:
    """Write config.json, model.safetensors in float32 and the tokenizer into an existing folder."""
    config, state = checkpoint.model.config, checkpoint.model.state_dict()
    if config.rope_theta:
        tensors = {f"model.{name}": tensor for name, tensor in separate(state, config, LLAMA).items()}
    else:
        turned = {name for name in state if name.endswith(".weight") and name.removesuffix(".weight").endswith(CONV1D)}
        tensors = {f"transformer.{name}": tensor.t() if name in turned else tensor for name, tensor in state.items()}
    save_tensors(tensors, folder / WEIGHTS_FILE)
    shutil.copyfile(checkpoint.folder / JSON_FILE, folder / JSON_FILE)
    write_configs(folder, config, checkpoint.tokenizer, None)


def separate(state: dict[str, Tensor], config: GPTConfig, names: Names) -> dict[str, Tensor]:
    """Give the weights of a Llama shape their names in another program, where each projection has its own matrix.

    Args:
        state: The weights of `slm.model.GPT`. They have no biases.
        config: The shape.
        names: The names of the program, such as `LLAMA` or `GGUF_LLAMA`.
    """
    heads = [config.n_head, config.kv_heads, config.kv_heads]
    sizes = {"attn.c_attn": [count * config.head_dim for count in heads], "mlp.c_fc": [config.inner, config.inner]}
    tensors = {}
    for name, tensor in state.items():
        layer = LAYER.search(name)
        parts = names.weights[LAYER.sub(".{}.", name)]
        size = next((size for part, size in sizes.items() if name.endswith(f"{part}.weight")), [len(tensor)])
        for part, piece in zip(parts, torch.split(tensor, size), strict=True):
            tensors[part.format(layer[1] if layer else "")] = piece.contiguous()
    return tensors


def interleave(tensor: Tensor, head_dim: int) -> Tensor:
    """Order the rows of a query or key matrix as a GGUF file of a Llama has them: rotary pairs beside each other."""
    rows, width = tensor.shape
    return tensor.view(rows // head_dim, 2, head_dim // 2, width).transpose(1, 2).reshape(rows, width).contiguous()


def gguf_llama(state: dict[str, Tensor], config: GPTConfig) -> dict[str, Tensor]:
    """Give the weights of a Llama shape their names and their order in a GGUF file."""
    tensors = separate(state, config, GGUF_LLAMA)
    rotary = ("attn_q.weight", "attn_k.weight")
    return {
        name: interleave(tensor, config.head_dim) if name.endswith(rotary) else tensor
        for name, tensor in tensors.items()
    }
