"""Reads a GGUF file of a Llama or a GPT-2. The `gguf` package turns quantized weights into float32."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slm.checkpoint import refuse_infinite
from slm.console.errors import SlmxError, needs
from slm.console.plain_text import as_plain_text
from slm.importers.foreign import ForeignModel, with_context
from slm.importers.gguf_file import GGUFFile
from slm.importers.gguf_tokenizer import PREFIX, gguf_tokenizer
from slm.importers.names import GGUF_GPT2, GGUF_LLAMA, HEAD, WTE
from slm.presets import GPTConfig
from slm.storage.read_errors import reason_of

NAMES = {"llama": GGUF_LLAMA, "gpt2": GGUF_GPT2}
ROPE_FREQUENCIES = "rope_freqs.weight"
MAX_NAME = 60
TOKENIZER_KEYS = tuple(
    PREFIX + key
    for key in (
        *("model", "pre", "tokens", "token_type", "scores", "merges"),
        *("add_space_prefix", "bos_token_id", "eos_token_id"),
    )
)


def read_gguf(source: Path, block_size: int | None) -> ForeignModel:
    """Reads a GGUF file, with its tokenizer.

    Args:
        source: The file.
        block_size: A shorter context than the model's, or None.

    Raises:
        SlmxError: The file is damaged, of another architecture, or has a quantization type that the gguf package does
            not read.
    """
    try:
        file = GGUFFile(source)
    except (OSError, ValueError) as error:
        raise SlmxError(f"{source}: not a whole GGUF file ({reason_of(error)}); copy or download it again") from None
    values = Metadata(file, source)
    names = NAMES[values.architecture]
    tensors = _dequantized(file, source)
    if ROPE_FREQUENCIES in tensors:
        raise SlmxError(
            f"{source}: holds {ROPE_FREQUENCIES}, scaled rotary positions, which slmx does not compute; "
            "docs/import.md lists what it does"
        )
    tied = names.weights[HEAD][0] not in tensors
    table = tensors.get(names.weights[WTE][0])
    if table is None or table.dim() != 2:
        raise SlmxError(f"{source}: holds no table {names.weights[WTE][0]}; download it again")
    layers = names.layers(tensors)
    if values.size("block_count") != layers:
        raise SlmxError(f"{source}: says {values.size('block_count')} layers and holds {layers}; download it again")
    config = values.shape(vocab_size=len(table), tied=tied)
    record: dict[str, Any] = {"file": source.name}
    for key, name in (("general.name", "name"), ("general.license", "licence")):
        if isinstance(text := values.get(key), str):
            record[name] = as_plain_text(text)[:MAX_NAME]
    return ForeignModel(
        where=source,
        kind=values.architecture,
        config=with_context(config, block_size, source),
        names=names,
        tensors=tensors,
        tokenizer=gguf_tokenizer(values.tokenizer(), str(source)),
        interleaved=values.architecture == "llama",
        record=record,
    )


class Metadata:
    """The metadata of a GGUF file.

    Attributes:
        architecture: The architecture, one of `NAMES`.

    Raises:
        SlmxError: slmx does not import the architecture.
    """

    def __init__(self, file: GGUFFile, source: Path) -> None:
        self._file, self._source = file, source
        architecture = self.get("general.architecture")
        if not isinstance(architecture, str) or architecture not in NAMES:
            found = ascii(architecture)[:MAX_NAME]
            raise SlmxError(f"{source}: a GGUF of the architecture {found}; slmx imports {', '.join(NAMES)}")
        self.architecture = architecture

    def get(self, key: str) -> Any:  # noqa: ANN401  # GGUF has numbers, texts and lists
        """Returns a value, or None if there is none; SlmxError if it cannot be read."""
        if key not in self._file:
            return None
        try:
            return self._file.value(key)
        except ValueError:
            raise SlmxError(f"{self._source}: its metadata {key} cannot be read; download it again") from None

    def tokenizer(self) -> dict[str, Any]:
        """Returns the metadata of the tokenizer."""
        return {key: self.get(key) for key in TOKENIZER_KEYS if key in self._file}

    def size(self, name: str, default: int | None = None) -> Any:  # noqa: ANN401  # GPTConfig checks the type
        """Returns a number of the architecture, such as "block_count"."""
        value = self.get(f"{self.architecture}.{name}")
        if value is None and default is None:
            raise SlmxError(f"{self._source}: its metadata lacks {self.architecture}.{name}; download it again")
        return default if value is None else value

    def shape(self, vocab_size: int, tied: bool) -> GPTConfig:
        """Returns the shape; SlmxError if it is impossible or not one that slmx computes."""
        heads, width = self.size("attention.head_count"), self.size("embedding_length")
        values = {
            "block_size": self.size("context_length"),
            "vocab_size": vocab_size,
            "n_layer": self.size("block_count"),
            "n_head": heads,
            "n_embd": width,
            "n_inner": self.size("feed_forward_length"),
            "tied": tied,
        }
        if self.architecture == "gpt2":
            return GPTConfig.from_dict(values | {"norm_eps": self._eps("layer_norm_epsilon")}, str(self._source))
        scaling = self.get("llama.rope.scaling.type")
        if scaling not in (None, "none"):
            raise SlmxError(
                f"{self._source}: rope.scaling.type is {ascii(scaling)[:MAX_NAME]}; slmx computes none only"
            )
        theta = self.get("llama.rope.freq_base") or 10000.0
        values |= {
            "n_kv_head": self.size("attention.head_count_kv", 0),
            "head_size": self.size("attention.key_length", 0),
            "activation": "silu",
            "gated": True,
            "norm": "rmsnorm",
            "norm_eps": self._eps("layer_norm_rms_epsilon"),
            "bias": False,
            "rope_theta": float(theta) if isinstance(theta, int) else theta,
        }
        config = GPTConfig.from_dict(values, str(self._source))
        turned = self.size("rope.dimension_count", config.head_dim)
        if turned != config.head_dim:
            raise SlmxError(
                f"{self._source}: rotates {turned} of {config.head_dim} channels; slmx computes models that rotate all"
            )
        return config

    def _eps(self, name: str) -> Any:  # noqa: ANN401  # GPTConfig checks the type
        # GGUF stores it in 32 bits. The shortest decimal number that gives these bits is what was meant.
        value = self.size(f"attention.{name}")
        return float(str(np.float32(value))) if isinstance(value, float) else value


def _dequantized(file: GGUFFile, source: Path) -> dict[str, torch.Tensor]:
    """Returns the tensors of a file in float32."""
    with needs("train"):
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    found: dict[str, torch.Tensor] = {}
    left = source.stat().st_size  # so that no bytes are those of two tensors
    for stored in file.tensors:
        shown = f"{stored.name[:MAX_NAME]!a}"
        try:
            kind = GGMLQuantizationType(stored.kind)
            block, size = GGML_QUANT_SIZES[kind]
            rows, columns = math.prod(stored.shape[1:]), stored.shape[0] if stored.shape else 1
            if columns % block:
                raise ValueError(f"{shown} has rows of {columns}, not of whole blocks of {block}")
            needed = rows * (columns // block) * size
            left -= needed
            if left < 0:
                raise ValueError(f"{shown} is cut off, or shares its bytes with another tensor")
            data = file.data(stored, needed).reshape(rows, -1)
            values = np.array(dequantize(data, kind), np.float32).reshape([*reversed(stored.shape)])
        except NotImplementedError:
            raise SlmxError(
                f"{source}: {shown} has the type {kind.name}, which the gguf package cannot turn into numbers; "
                "use a file in F32, F16, Q8_0, Q4_0 or Q4_1"
            ) from None
        except (ValueError, KeyError) as error:
            raise SlmxError(f"{source}: not a whole GGUF file ({error}); copy or download it again") from None
        tensor = torch.from_numpy(values)
        refuse_infinite(source, stored.name, tensor, "download it again")
        found[stored.name] = tensor
    return found
