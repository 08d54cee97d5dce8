"""A GPT-2 shaped Hugging Face folder becomes a checkpoint.

Its `config.json` must describe what GPT here computes: learned positions, tanh GELU, LayerNorm with epsilon 1e-5,
attention scaled by the root of the head's width, a head tied to the token table. Weights come from safetensors
(transformers' Conv1D stores them [in, out]), the tokenizer from `tokenizer.json`, which must be byte-level BPE.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from slm.atomic import atomic_folder
from slm.checkpoint import save_checkpoint
from slm.errors import SlmxError
from slm.gpt2_tokenizer import import_tokenizer
from slm.hashing import sha256_of
from slm.model import GPT
from slm.ownership import CHECKPOINT
from slm.presets import PRESETS, GPTConfig

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
# transformers' names for the tanh form of GELU.
TANH_GELU = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate")
# What GPT here takes for granted, under transformers' names with transformers' defaults.
EXPECTED = {
    "layer_norm_epsilon": (1e-5, 1e-5),
    "scale_attn_weights": (True, True),
    "scale_attn_by_inverse_layer_idx": (False, False),
    "tie_word_embeddings": (True, True),
    "add_cross_attention": (False, False),
}
CONV1D = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
BUFFERS = (".attn.bias", ".attn.masked_bias")

Say = Callable[[str], None]


def import_gpt2(source: Path, out: Path, force: bool, say: Say) -> GPTConfig:
    """Read a Hugging Face folder and write a checkpoint; its shape.

    Raises SlmxError naming what is missing, what GPT here cannot compute, or a shape that its tensors contradict.
    """
    if not source.is_dir():
        raise SlmxError(f"{source}: no folder here; name one with config.json, model.safetensors and tokenizer.json")
    stored = _read_config(source / CONFIG_FILE)
    tensors = _read_tensors(source)
    tokenizer = import_tokenizer(source)
    config = _shape(stored, tensors, tokenizer.vocab_size, source)
    model = GPT(config)
    model.load_state_dict(_state(config, tensors, tokenizer.rows, source))
    dropped = tensors["wte.weight"].shape[0] - config.vocab_size
    if dropped:
        say(f"left out {dropped} rows of the token table that no text can reach")
    preset = next((preset.name for preset in PRESETS.values() if preset.config == config), "custom")
    record = {
        "imported": {"folder": source.name, "model_type": "gpt2", "sha256": sha256_of(source / CONFIG_FILE)},
        "licence": "not stated",
    }
    with atomic_folder(out, CHECKPOINT, replace=force) as folder:
        save_checkpoint(folder, preset, model.eval(), tokenizer.tokenizer, tokenizer.merges, record)
    return config


def _read_config(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text("utf-8"))
        kind = stored["model_type"]
    except FileNotFoundError:
        raise SlmxError(f"{path}: missing; this is no Hugging Face model folder") from None
    except (ValueError, KeyError, TypeError) as error:
        raise SlmxError(f"{path}: not a model configuration ({error!r})") from error
    if kind != "gpt2":
        raise SlmxError(f"{path}: a model of type {kind!r}; slmx takes GPT-2 shaped ones (model_type gpt2)")
    activation = stored.get("activation_function", "gelu_new")
    if activation not in TANH_GELU:
        raise SlmxError(f"{path}: activation_function {activation!r}; slmx computes {' or '.join(TANH_GELU[:2])}")
    for name, (wanted, default) in EXPECTED.items():
        if stored.get(name, default) != wanted:
            raise SlmxError(f"{path}: {name} is {stored[name]}; slmx computes {wanted} only")
    return dict(stored)


def _read_tensors(source: Path) -> dict[str, Tensor]:
    """All tensors of one file or of the shards that an index lists, `transformer.` left off their names."""
    files = [source / WEIGHTS_FILE]
    if (source / INDEX_FILE).is_file():
        index = json.loads((source / INDEX_FILE).read_text("utf-8"))
        files = [source / name for name in sorted(set(index["weight_map"].values()))]
    elif not files[0].is_file():
        pickled = next(iter(sorted(source.glob("*.bin"))), None)
        advice = (
            f"{pickled.name} is pickled: save the model again with save_pretrained(..., safe_serialization=True)"
            if pickled
            else "slmx reads safetensors only"
        )
        raise SlmxError(f"{source}: no {WEIGHTS_FILE}; {advice}")
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise SlmxError(f"{file}: cannot read ({str(error).splitlines()[0]})") from error
    return {
        name.removeprefix("transformer."): tensor.float()
        for name, tensor in tensors.items()
        if not name.endswith(BUFFERS)
    }


def _shape(stored: dict[str, Any], tensors: dict[str, Tensor], vocab_size: int, source: Path) -> GPTConfig:
    """The shape that config.json tells, held against the tensors."""
    for name in ("wte.weight", "wpe.weight"):
        if name not in tensors:
            raise SlmxError(f"{source}: its weights hold no {name}; this is no GPT-2")
    named = {"n_positions": "block_size", "n_layer": "n_layer", "n_head": "n_head", "n_embd": "n_embd"}
    missing = [name for name in named if name not in stored]
    if missing:
        raise SlmxError(f"{source / CONFIG_FILE}: lacks {', '.join(missing)}")
    config = GPTConfig.from_dict(
        {ours: stored[theirs] for theirs, ours in named.items()} | {"vocab_size": vocab_size},
        str(source / CONFIG_FILE),
    )
    positions = tensors["wpe.weight"].shape[0]
    if positions != config.block_size:
        raise SlmxError(
            f"{source}: n_positions is {config.block_size}, the position table has {positions} rows; mend config.json"
        )
    inner = stored.get("n_inner") or 4 * config.n_embd
    if inner != 4 * config.n_embd:
        raise SlmxError(f"{source / CONFIG_FILE}: n_inner is {inner}; slmx computes 4 x n_embd ({4 * config.n_embd})")
    if "lm_head.weight" in tensors and not torch.equal(tensors["lm_head.weight"], tensors["wte.weight"]):
        raise SlmxError(f"{source}: its head is not the token table; slmx computes tied heads only")
    return config


def _state(config: GPTConfig, tensors: dict[str, Tensor], rows: list[int], source: Path) -> dict[str, Tensor]:
    """The weights under our names, [out, in], the token table's rows in the order of our ids."""
    state = {}
    for name, expected in GPT(config).state_dict().items():
        if name not in tensors:
            raise SlmxError(f"{source}: its weights hold no {name}; config.json promises {config.n_layer} layers")
        tensor = tensors[name]
        if name.removesuffix(".weight").endswith(CONV1D) and name.endswith(".weight"):
            tensor = tensor.t()
        if name == "wte.weight":
            if max(rows) >= len(tensor):
                raise SlmxError(f"{source}: tokenizer.json has id {max(rows)}, the token table {len(tensor)} rows")
            tensor = tensor[rows]
        if tensor.shape != expected.shape:
            raise SlmxError(
                f"{source}: {name} is {list(tensor.shape)}, config.json promises {list(expected.shape)}; mend either"
            )
        state[name] = tensor.contiguous()
    layers = {int(name.split(".")[1]) for name in tensors if name.startswith("h.")}
    if len(layers) != config.n_layer:
        raise SlmxError(f"{source}: its weights have {len(layers)} layers, config.json promises {config.n_layer}")
    return state
