"""Reads a Hugging Face folder of a GPT-2, GPT-Neo or Llama.

Its `config.json` must describe what `slm.model.GPT` computes. A setting that changes the result and that slmx does not
compute is refused by name. Its weights are in safetensors or in `pytorch_model.bin`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]
from torch import Tensor

from slm.console.errors import SlmxError
from slm.folder_kind import Kind, find_kind, wrong_kind
from slm.importers.foreign import ForeignModel, with_context
from slm.importers.hugging_face_tokenizer import import_tokenizer
from slm.importers.hugging_face_weights import read_json_object, read_weights, refuse_pointers, shown_value, whole_model
from slm.importers.names import GPT2, GPT_NEO, HEAD, LLAMA, WPE, WTE, Names
from slm.presets import GPTConfig
from slm.storage.file_names import CONFIG_FILE, WEIGHTS_FILE
from slm.storage.hashing import sha256_of

MAX_CARD_BYTES = 2**16
MOST_LAYERS = 10**4
# Names in transformers for the activation functions.
ACTIVATIONS = {
    **dict.fromkeys(("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate"), "gelu_tanh"),
    **dict.fromkeys(("gelu", "gelu_python"), "gelu"),
    "relu": "relu",
    **dict.fromkeys(("silu", "swish"), "silu"),
}
# Settings that the result depends on: the value that slmx computes, which is also the default of transformers.
EXPECTED: dict[str, dict[str, object]] = {
    "gpt2": {"add_cross_attention": False},
    "gpt_neo": {},
    "llama": {"rope_scaling": None, "partial_rotary_factor": 1.0},
}
EVERYWHERE: dict[str, object] = {"pruned_heads": {}, "quantization_config": None, "auto_map": None}
CONV1D = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
# The header of a model card, which is YAML.
HEADER = re.compile(r"\s*---[ \t]*\n(.*?\n)(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
LICENCE_NAME = re.compile(r"[\w.+ -]{1,60}")
MOST_LICENCES = 4
UNSTATED = ("", "null", "~", "unknown")
HUB_CACHE = "snapshots"
ADAPTER_FILE = "adapter_config.json"


def read_hugging_face(source: Path, block_size: int | None, tokenizer: Path | None = None) -> ForeignModel:
    """Reads a Hugging Face folder.

    Args:
        source: The folder.
        block_size: A shorter context than the model's, or None.
        tokenizer: The one that was given with the folder, for advice.

    Raises:
        SlmxError: The folder is of another kind, a file is missing or damaged, or `slm.model.GPT` does not compute this
            model.
    """
    if find_kind(source) not in (Kind.HUGGING_FACE, Kind.FOLDER):
        raise wrong_kind(source, Kind.HUGGING_FACE)
    refuse_pointers(source)
    path = source / CONFIG_FILE
    settings = Settings(_read_config(path, tokenizer), path)
    names, prefix, read_shape = {
        "gpt2": (GPT2, "transformer.", _gpt2),
        "gpt_neo": (GPT_NEO, "transformer.", _gpt_neo),
        "llama": (LLAMA, "model.", _llama),
    }[settings.model_type]
    tensors = read_weights(source, prefix, tokenizer)
    config = _check_tables(read_shape(settings), names, tensors, settings)
    if settings.model_type == "gpt2":
        tensors = {name: _linear(name, tensor) for name, tensor in tensors.items()}
    record = {"folder": source.absolute().name, "sha256": sha256_of(path)}
    if licence := _licence(source):
        record["licence"] = licence
    return ForeignModel(
        where=source,
        kind=settings.model_type,
        config=with_context(config, block_size, source),
        names=names,
        tensors=tensors,
        tokenizer=import_tokenizer(source, settings.values),
        attention_factors=_attention_factors(settings, config),
        zero_biases=_zero_biases(settings),
        record=record,
    )


class Settings:
    """The settings in a config.json.

    Attributes:
        values: All settings.
        path: The file.
        model_type: One of the types in `EXPECTED`.

    Raises:
        SlmxError: A setting has a value that slmx does not compute.
    """

    def __init__(self, values: dict[str, object], path: Path) -> None:
        self.values, self.path = values, path
        model_type = values.get("model_type")
        if not isinstance(model_type, str) or model_type not in EXPECTED:
            kind = f"a model of type {shown_value(model_type)}" if "model_type" in values else "has no model_type"
            raise SlmxError(f"{path}: {kind}; slmx imports models of the types {', '.join(EXPECTED)}")
        self.model_type = model_type
        for name, wanted in (EVERYWHERE | EXPECTED[model_type]).items():
            self.expect(name, wanted)

    def expect(self, name: str, wanted: object) -> None:
        """Refuses a setting that has another value than `wanted`, which is the default."""
        found = self.values.get(name, wanted)
        if found != wanted:
            without = f"{wanted} only" if wanted not in (None, {}) else "models without it only"
            raise SlmxError(f"{self.path}: {name} is {shown_value(found)}; slmx computes {without}")

    def size(self, *names: str, default: int | None = None) -> Any:  # noqa: ANN401  # GPTConfig checks the type
        """Returns the value of a setting, which may have any of several names."""
        found = [self.values[name] for name in names if self.values.get(name) is not None]
        if not found and default is not None:
            return default
        if not found:
            raise SlmxError(f"{self.path}: lacks {names[0]}; download the folder again")
        if found[0] != found[-1]:
            raise SlmxError(f"{self.path}: {' and '.join(names)} differ; correct config.json")
        return found[0]

    def number(self, name: str, default: float) -> float:
        """Returns a positive number."""
        value = self.values.get(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e12:
            raise SlmxError(f"{self.path}: {name} is {shown_value(value)}, not a positive number; correct config.json")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """Returns true or false."""
        value = self.values.get(name, default)
        if not isinstance(value, bool):
            raise SlmxError(f"{self.path}: {name} is {shown_value(value)}, not true or false; correct config.json")
        return value

    def activation(self, name: str, default: str) -> str:
        """Returns the name that slmx has for an activation function."""
        value = self.values.get(name, default)
        if not isinstance(value, str) or value not in ACTIVATIONS:
            raise SlmxError(f"{self.path}: {name} is {shown_value(value)}; slmx computes {', '.join(ACTIVATIONS)} only")
        return ACTIVATIONS[value]

    def shape(self, **values: Any) -> GPTConfig:  # noqa: ANN401  # fields of GPTConfig
        """Returns a shape; SlmxError that names the file if it is impossible."""
        return GPTConfig.from_dict({"vocab_size": self.size("vocab_size", default=1), **values}, str(self.path))


def _gpt2(settings: Settings) -> GPTConfig:
    return settings.shape(
        block_size=settings.size("n_positions", "max_position_embeddings"),
        n_layer=settings.size("n_layer", "num_hidden_layers"),
        n_head=settings.size("n_head", "num_attention_heads"),
        n_embd=settings.size("n_embd", "hidden_size"),
        n_inner=settings.size("n_inner", default=0),
        activation=settings.activation("activation_function", "gelu_new"),
        norm_eps=settings.number("layer_norm_epsilon", 1e-5),
        tied=settings.flag("tie_word_embeddings", True),
    )


def _gpt_neo(settings: Settings) -> GPTConfig:
    layers = settings.size("num_layers", "num_hidden_layers")
    window = settings.size("window_size", default=256)
    kinds = _neo_layers(settings)
    return settings.shape(
        block_size=settings.size("max_position_embeddings"),
        n_layer=layers,
        n_head=settings.size("num_heads", "num_attention_heads"),
        n_embd=settings.size("hidden_size"),
        n_inner=settings.size("intermediate_size", default=0),
        activation=settings.activation("activation_function", "gelu_new"),
        norm_eps=settings.number("layer_norm_epsilon", 1e-5),
        tied=settings.flag("tie_word_embeddings", True),
        windows=[window if kind == "local" else 0 for kind in kinds],
    )


def _neo_layers(settings: Settings) -> list[str]:
    """Returns "global" or "local" for each layer, from attention_types: [[["global", "local"], 6], ...]."""
    listed: Any = settings.values.get("attention_types", [[["global", "local"], 12]])
    kinds: list[str] = []
    try:
        for group, times in listed:
            if not set(group) <= {"global", "local"} or not 0 <= times * len(group) <= MOST_LAYERS - len(kinds):
                raise ValueError
            kinds += [*group] * times
    except (TypeError, ValueError):
        raise SlmxError(
            f"{settings.path}: attention_types is {shown_value(listed)}; "
            "slmx computes lists of global and local layers only"
        ) from None
    return kinds


def _llama(settings: Settings) -> GPTConfig:
    heads, width = settings.size("num_attention_heads"), settings.size("hidden_size")
    theta = settings.number("rope_theta", 10000.0)
    if isinstance(rope := settings.values.get("rope_parameters"), dict):  # from version 5 of transformers on
        if rope.get("rope_type", "default") != "default":
            raise SlmxError(
                f"{settings.path}: rope_type is {shown_value(rope['rope_type'])}; slmx computes default only"
            )
        theta = Settings({**settings.values, **rope}, settings.path).number("rope_theta", theta)
    return settings.shape(
        block_size=settings.size("max_position_embeddings"),
        n_layer=settings.size("num_hidden_layers"),
        n_head=heads,
        n_embd=width,
        n_kv_head=settings.size("num_key_value_heads", default=0),
        head_size=settings.size("head_dim", default=0),
        n_inner=settings.size("intermediate_size"),
        activation=settings.activation("hidden_act", "silu"),
        gated=True,
        norm="rmsnorm",
        norm_eps=settings.number("rms_norm_eps", 1e-6),
        bias=settings.flag("attention_bias", False) or settings.flag("mlp_bias", False),
        tied=settings.flag("tie_word_embeddings", False),
        rope_theta=theta,
    )


def _attention_factors(settings: Settings, config: GPTConfig) -> tuple[float, ...]:
    """Returns the factor of each layer's attention scores relative to 1 / sqrt(head_dim)."""
    if settings.model_type == "gpt_neo":
        return (config.head_dim**0.5,) * config.n_layer
    if settings.model_type != "gpt2":
        return ()
    plain = 1.0 if settings.flag("scale_attn_weights", True) else config.head_dim**0.5
    by_layer = settings.flag("scale_attn_by_inverse_layer_idx", False)
    return tuple(plain / (layer + 1 if by_layer else 1) for layer in range(config.n_layer))


def _zero_biases(settings: Settings) -> tuple[str, ...]:
    """Returns the parts of a block that have no biases in this kind of model."""
    if settings.model_type == "gpt_neo":
        return ("attn.c_attn",)
    if settings.model_type != "llama":
        return ()
    attention = () if settings.flag("attention_bias", False) else ("attn.c_attn", "attn.c_proj")
    return attention if settings.flag("mlp_bias", False) else (*attention, "mlp.c_fc", "mlp.c_proj")


def _check_tables(config: GPTConfig, names: Names, tensors: Mapping[str, Tensor], settings: Settings) -> GPTConfig:
    """Compares the sizes in config.json with those of the weights, before anything of that size is allocated.

    Returns:
        The shape, whose vocabulary is the number of rows of the token table.
    """
    path, source = settings.path, settings.path.parent
    table, positions = names.weights[WTE][0], names.weights.get(WPE, ("",))[0]
    for name in filter(None, (table, positions)):
        if name not in tensors or tensors[name].dim() != 2:
            raise SlmxError(f"{source}: its weights hold no table {name}, which a {names.program} has")
    sizes = [("n_embd", config.n_embd, tensors[table].shape[1]), ("n_layer", config.n_layer, names.layers(tensors))]
    if positions:
        sizes.append(("n_positions", config.block_size, tensors[positions].shape[0]))
    for what, named, held in sizes:
        if named != held:
            raise SlmxError(f"{path}: {what} is {named}, but that of the weights is {held}; correct config.json")
    if config.tied and HEAD in tensors and not torch.equal(tensors[HEAD], tensors[table]):
        raise SlmxError(
            f"{source}: {HEAD} is not the token table, but tie_word_embeddings is true; correct config.json"
        )
    rows = len(tensors[table])
    if settings.size("vocab_size", default=rows) != rows:
        raise SlmxError(
            f"{path}: vocab_size is {config.vocab_size}, but the token table has {rows} rows; correct config.json"
        )
    return replace(config, vocab_size=rows)


def _linear(name: str, tensor: Tensor) -> Tensor:
    """Returns a matrix of GPT-2 as [out, in]. The Conv1D modules of transformers store [in, out]."""
    is_matrix = name.endswith(".weight") and name.removesuffix(".weight").endswith(CONV1D) and tensor.dim() == 2
    return tensor.t() if is_matrix else tensor


def _licence(source: Path) -> str | None:
    """Returns the licence, or several, that the header of the model card names; None if it names none."""
    path = source / "README.md"
    if not path.is_file():  # a pipe would be waited for
        return None
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as card:
            header = HEADER.match(card.read(MAX_CARD_BYTES))
        values = yaml.load(header[1], yaml.BaseLoader) if header else None  # it makes only texts, lists and mappings
    except (OSError, yaml.YAMLError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    licence = values.get("license")
    if licence == "other" and isinstance(name := values.get("license_name"), str):
        licence = name
    names = licence if isinstance(licence, list) else [licence]
    kept = [name for name in names if isinstance(name, str) and LICENCE_NAME.fullmatch(name) and name not in UNSTATED]
    return ", ".join(kept[:MOST_LICENCES]) or None


def _read_config(path: Path, tokenizer: Path | None) -> dict[str, object]:
    if (path.parent / ADAPTER_FILE).is_file() and not path.exists():
        raise SlmxError(
            f"{path.parent}: an adapter, not a model; merge it into its model with peft's merge_and_unload(), save "
            "that with save_pretrained(), and import the new folder"
        )
    if not path.exists() and (found := next((path.parent / HUB_CACHE).glob(f"*/{CONFIG_FILE}"), None)):
        raise SlmxError(f"{path.parent}: the cache of a hub, with a model inside; name the folder {found.parent}")
    if not path.exists() and (advice := whole_model(path.parent, tokenizer)):
        raise SlmxError(f"{path}: missing; {advice}")
    if not path.exists():
        raise SlmxError(
            f"{path}: missing; name a Hugging Face folder, with {CONFIG_FILE}, {WEIGHTS_FILE} and a tokenizer"
        )
    return read_json_object(path, "a model configuration")
