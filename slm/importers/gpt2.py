"""Converts a GPT-2 shaped Hugging Face folder to a checkpoint.

Its `config.json` must describe what `slm.model.GPT` computes: learned positions, tanh GELU, LayerNorm with epsilon
1e-5, attention divided by the square root of the head's width, and an output head that is the token table. Weights are
read from safetensors. The Conv1D modules of transformers store matrices as [in, out]. The tokenizer is read from
`tokenizer.json`, which must be byte-level BPE.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from slm.atomic import atomic_folder
from slm.checkpoint import read_tensors, save_checkpoint
from slm.errors import SlmxError
from slm.folder_kind import Kind, find_kind, wrong_kind
from slm.hashing import sha256_of
from slm.importers.hugging_face_tokenizer import import_tokenizer
from slm.json_reader import Fields, is_plain_name, read_json
from slm.model import GPT
from slm.ownership import CHECKPOINT
from slm.presets import PRESETS, GPTConfig

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_JSON_BYTES = 2**24
# Names in transformers for the tanh form of GELU.
TANH_GELU = ("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate")
# Settings in config.json that GPT depends on: the value that it needs, and the default of transformers.
EXPECTED: dict[str, tuple[object, object]] = {
    "layer_norm_epsilon": (1e-5, 1e-5),
    "scale_attn_weights": (True, True),
    "scale_attn_by_inverse_layer_idx": (False, False),
    "tie_word_embeddings": (True, True),
    "add_cross_attention": (False, False),
    "pruned_heads": ({}, {}),
    "quantization_config": (None, None),
    "auto_map": (None, None),
}
# The two names that transformers accepts in config.json for each size of a GPT.
SIZES = {
    "block_size": ("n_positions", "max_position_embeddings"),
    "n_layer": ("n_layer", "num_hidden_layers"),
    "n_head": ("n_head", "num_attention_heads"),
    "n_embd": ("n_embd", "hidden_size"),
}
CONV1D = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
# Constants that older versions of transformers stored among the weights.
BUFFERS = (".attn.bias", ".attn.masked_bias")
HEAD = "lm_head.weight"
OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.gguf")
PICKLED = (".bin", ".pt", ".pth", ".ckpt")

Report = Callable[[str], None]


def import_gpt2(source: Path, out: Path, force: bool, report: Report) -> GPTConfig:
    """Reads a Hugging Face folder and writes a checkpoint.

    Args:
        source: The folder.
        out: The folder of the checkpoint.
        force: Whether to replace a checkpoint that slmx wrote to `out`.
        report: Called with one line about each part of the model that is left out or changes its meaning.

    Returns:
        The shape of the model.

    Raises:
        SlmxError: The folder is of another kind, a file is missing or damaged, `slm.model.GPT` does not compute this
            model, or `out` cannot be written. Nothing is written then.
    """
    if find_kind(source) not in (Kind.HUGGING_FACE, Kind.FOLDER):
        raise wrong_kind(source, Kind.HUGGING_FACE)
    stored = _read_config(source / CONFIG_FILE)
    tensors = _read_weights(source)
    tokenizer = import_tokenizer(source, stored)
    config = _shape(stored, tensors, tokenizer.tokenizer.vocab_size, source)
    model = GPT(config)
    model.load_state_dict(_state(config, tensors, tokenizer.rows, source))
    if tokenizer.left_out:
        report(f"left out the special tokens {', '.join(tokenizer.left_out)}: slmx reads them as plain text")
    unused = tensors["wte.weight"].shape[0] - config.vocab_size - len(tokenizer.left_out)
    if unused > 0:
        report(f"left out {unused} rows of the token table that no text can reach")
    preset = next((preset.name for preset in PRESETS.values() if preset.config == config), "custom")
    record = {
        "imported": {
            "folder": source.absolute().name,
            "model_type": "gpt2",
            "sha256": sha256_of(source / CONFIG_FILE),
        },
        "licence": "not stated",
    }
    with atomic_folder(out, CHECKPOINT, replace=force) as folder:
        save_checkpoint(folder, preset, model.eval(), tokenizer.tokenizer, tokenizer.merges, record)
    return config


def _read_json_object(path: Path, what: str) -> dict[str, object]:
    try:
        values = read_json(path, MAX_JSON_BYTES)
    except OSError as error:
        raise SlmxError(f"{path}: cannot read ({error.strerror}); check its permissions") from None
    except ValueError as error:
        raise SlmxError(f"{path}: not {what} ({error}); download the folder again") from None
    if not isinstance(values, dict):
        raise SlmxError(f"{path}: not {what} (no JSON object); download the folder again")
    return values


def _shown(value: object) -> str:
    """Formats a JSON value for one line of a message."""
    return ascii(value)[:80]


def _read_config(path: Path) -> dict[str, object]:
    """Returns the content of config.json; SlmxError if it describes a model that GPT does not compute."""
    if not path.exists():
        raise SlmxError(
            f"{path}: missing; name a Hugging Face folder, with {CONFIG_FILE}, {WEIGHTS_FILE}, tokenizer.json"
        )
    stored = _read_json_object(path, "a model configuration")
    if stored.get("model_type") != "gpt2":
        kind = f"a model of type {_shown(stored['model_type'])}" if "model_type" in stored else "has no model_type"
        raise SlmxError(f"{path}: {kind}; slmx imports GPT-2 shaped models only (model_type gpt2)")
    activation = stored.get("activation_function", "gelu_new")
    if activation not in TANH_GELU:
        raise SlmxError(f"{path}: activation_function is {_shown(activation)}; slmx computes gelu_new only")
    for name, (wanted, default) in EXPECTED.items():
        found = stored.get(name, default)
        if found != wanted:
            without = f"{wanted} only" if wanted not in (None, {}) else "models without it only"
            raise SlmxError(f"{path}: {name} is {_shown(found)}; slmx computes {without}")
    return stored


def _read_weights(source: Path) -> dict[str, Tensor]:
    """Reads the tensors from one file, or from the files of an index. A prefix `transformer.` is removed from names."""
    if (source / WEIGHTS_FILE).is_file():
        tensors = read_tensors(source / WEIGHTS_FILE, BUFFERS)
    elif (source / INDEX_FILE).is_file():
        tensors = _read_shards(source)
    else:
        raise _no_weights(source)
    found = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    if len(found) < len(tensors):
        raise SlmxError(f"{source}: its weights hold a tensor twice, with and without 'transformer.' before its name")
    return found


def _no_weights(source: Path) -> SlmxError:
    other = next((path for pattern in OTHER_WEIGHTS for path in sorted(source.glob(pattern))), None)
    if other is None:
        return SlmxError(
            f"{source}: no {WEIGHTS_FILE} here, and slmx reads safetensors only; download the folder again"
        )
    problem = "is pickled, and reading it can run code" if other.suffix in PICKLED else "is not safetensors"
    return SlmxError(
        f"{source}: no {WEIGHTS_FILE} here; {other.name} {problem}. If you trust it, transformers converts it: "
        "AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW, safe_serialization=True)"
    )


def _read_shards(source: Path) -> dict[str, Tensor]:
    """Reads each tensor of an index from the file that the index names for it."""
    path = source / INDEX_FILE
    stored = _read_json_object(path, "an index of safetensors files")
    try:
        listed = Fields(stored).object("weight_map")
        files = {name: listed.text(name) for name in listed}
    except ValueError as error:
        raise SlmxError(f"{path}: not an index of safetensors files ({error}); download the folder again") from None
    if not files:
        raise SlmxError(f"{path}: lists no tensor; download the folder again")
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(files.values())):
        if not is_plain_name(file) or not file.endswith(".safetensors"):
            raise SlmxError(
                f"{path}: lists {_shown(file)}, which is no safetensors file of this folder; repair the index"
            )
        if not (source / file).is_file():
            raise SlmxError(f"{source / file}: missing, but {INDEX_FILE} lists it; download the folder again, whole")
        found = read_tensors(source / file, BUFFERS)
        for name in (name for name, where in files.items() if where == file and not name.endswith(BUFFERS)):
            if name not in found:
                raise SlmxError(
                    f"{source / file}: holds no {_shown(name)}, but {INDEX_FILE} says so; download it again"
                )
            tensors[name] = found[name]
    return tensors


def _shape(stored: Mapping[str, object], tensors: Mapping[str, Tensor], vocab_size: int, source: Path) -> GPTConfig:
    """Returns the shape that config.json describes, after comparing it with the tensors.

    Nothing of that size is allocated before.
    """
    path = source / CONFIG_FILE
    sizes: dict[str, object] = {"vocab_size": vocab_size}
    for ours, names in SIZES.items():
        found = [stored[name] for name in names if name in stored]
        if not found:
            raise SlmxError(f"{path}: lacks {names[0]}; download the folder again")
        if found[0] != found[-1]:
            raise SlmxError(f"{path}: {' and '.join(names)} differ; correct config.json")
        sizes[ours] = found[0]
    config = GPTConfig.from_dict(sizes, str(path))
    for name in ("wte.weight", "wpe.weight"):
        if name not in tensors or tensors[name].dim() != 2:
            raise SlmxError(f"{source}: its weights hold no table {name}; slmx imports GPT-2 shaped models only")
    layers = len({block[1] for name in tensors if (block := re.match(r"h\.(\d+)\.", name))})
    for what, named, held in (
        ("n_positions", config.block_size, tensors["wpe.weight"].shape[0]),
        ("n_embd", config.n_embd, tensors["wte.weight"].shape[1]),
        ("n_layer", config.n_layer, layers),
    ):
        if named != held:
            raise SlmxError(f"{path}: {what} is {named}, but that of the weights is {held}; correct config.json")
    inner = stored.get("n_inner")
    if inner not in (None, 4 * config.n_embd):
        raise SlmxError(f"{path}: n_inner is {_shown(inner)}; slmx computes 4 x n_embd ({4 * config.n_embd}) only")
    if HEAD in tensors and not torch.equal(tensors[HEAD], tensors["wte.weight"]):
        raise SlmxError(f"{source}: {HEAD} is not the token table; slmx computes tied heads only")
    return config


def _state(config: GPTConfig, tensors: Mapping[str, Tensor], rows: list[int], source: Path) -> dict[str, Tensor]:
    """Returns the weights with the names of GPT, as [out, in], and the rows of the token table in the order `rows`."""
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in GPT(config).state_dict().items()}
    more = next((name for name in tensors if name not in expected and name != HEAD), None)
    if more is not None:
        raise SlmxError(f"{source}: its weights hold {_shown(more)}, which slmx does not compute")
    state = {}
    for name, shape in expected.items():
        if name not in tensors:
            raise SlmxError(f"{source}: its weights hold no {name}; download the folder again, whole")
        tensor = tensors[name]
        if name.endswith(".weight") and name.removesuffix(".weight").endswith(CONV1D) and tensor.dim() == 2:
            tensor = tensor.t()
        if name == "wte.weight":
            if max(rows) >= len(tensor):
                raise SlmxError(
                    f"{source}: tokenizer.json has the id {max(rows)}, the token table only {len(tensor)} rows; "
                    "download the folder again"
                )
            tensor = tensor[rows]
        if tensor.shape != shape:
            raise SlmxError(
                f"{source}: {name} is {list(tensor.shape)}, and config.json asks for {list(shape)}; correct config.json"
            )
        state[name] = tensor.contiguous()
    return state
