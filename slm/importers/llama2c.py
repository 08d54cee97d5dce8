"""Reads a .bin file of llama2.c, whose layout is that of export.py in github.com/karpathy/llama2.c.

The legacy version has a header of seven int32 and float32 weights. Version 1 has the magic number "ak42", the version
and the same sizes in 256 bytes, and then float32 weights in another order. Version 2 is quantized and is not read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from slm.checkpoint import refuse_infinite
from slm.console.counted import counted
from slm.console.errors import SlmxError
from slm.importers.foreign import ForeignModel, with_context
from slm.importers.imported_tokenizer import ImportedTokenizer
from slm.importers.names import HEAD, LLAMA2C
from slm.presets import GPTConfig

MAGIC = 0x616B3432
HEADER_BYTES = 256
SIZES = struct.Struct("<7i")
ATTENTION = ("attention.wq", "attention.wk", "attention.wv", "attention.wo")
FEED_FORWARD = ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3")


def read_llama2c(source: Path, tokenizer: Callable[[], ImportedTokenizer], block_size: int | None) -> ForeignModel:
    """Reads a .bin file of llama2.c.

    Args:
        source: The file.
        tokenizer: Returns the tokenizer, which the file does not hold. It is called after the file was checked.
        block_size: A shorter context than the model's, or None.

    Raises:
        SlmxError: The file is of another kind, is cut off, or is quantized.
    """
    with source.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if len(head) < HEADER_BYTES:
        raise SlmxError(f"{source}: {counted(len(head), 'byte')}, too few for a model of llama2.c; copy it again")
    (magic, version), legacy = struct.unpack_from("<Ii", head), True
    if magic == MAGIC:
        if version != 1:
            raise SlmxError(
                f"{source}: version {version} of llama2.c's format; slmx reads the float32 versions 0 and 1: "
                "export it again with --version 1"
            )
        legacy = False
    config = _shape(head, legacy, source)
    layout = _layout(config, legacy)
    offset = SIZES.size if legacy else HEADER_BYTES
    expected = offset + 4 * sum(count * rows * columns for _, count, rows, columns in layout)
    if source.stat().st_size != expected:
        raise SlmxError(
            f"{source}: {source.stat().st_size:,} bytes, and a model of llama2.c with these sizes has {expected:,}; "
            "it is cut off or of another kind"
        )
    values: npt.NDArray[np.float32] = np.memmap(source, "<f4", "r", offset)
    tensors: dict[str, torch.Tensor] = {}
    at = 0
    for name, count, rows, columns in layout:
        for layer in range(count):
            part = torch.from_numpy(np.array(values[at : at + rows * columns]))
            at += rows * columns
            if not name:
                continue
            refuse_infinite(source, name, part, "copy it again")
            tensors[name.format(layer)] = part.view(rows, columns) if rows > 1 else part
    return ForeignModel(
        where=source,
        kind="llama",
        config=with_context(config, block_size, source),
        names=LLAMA2C,
        tensors=tensors,
        tokenizer=tokenizer(),
        interleaved=True,
        record={"file": source.name},
        has_tokenizer=False,
    )


def _shape(head: bytes, legacy: bool, source: Path) -> GPTConfig:
    """Returns the shape."""
    dim, inner, layers, heads, kv_heads, vocab, context = SIZES.unpack_from(head, 0 if legacy else 8)
    tied = vocab > 0 if legacy else bool(head[8 + SIZES.size])
    return GPTConfig.from_dict(
        {
            "block_size": context,
            "vocab_size": abs(vocab),
            "n_layer": layers,
            "n_head": heads,
            "n_embd": dim,
            "n_kv_head": kv_heads,
            "n_inner": inner,
            "activation": "silu",
            "gated": True,
            "norm": "rmsnorm",
            "bias": False,
            "tied": tied,
            "rope_theta": 10000.0,
        },
        str(source),
    )


def _layout(config: GPTConfig, legacy: bool) -> list[tuple[str, int, int, int]]:
    """Returns the tensors in the order of the file: name ("" is not used), number of layers, rows, columns."""
    d, layers, kv, inner = config.n_embd, config.n_layer, config.kv_heads * config.head_dim, config.inner
    rows = dict(zip(ATTENTION, ((d, d), (kv, d), (kv, d), (d, d)), strict=True))
    rows |= dict(zip(FEED_FORWARD, ((inner, d), (d, inner), (inner, d)), strict=True))

    def layered(name: str) -> tuple[str, int, int, int]:
        return (f"layers.{{}}.{name}.weight", layers, *rows.get(name, (1, d)))

    table = ("tok_embeddings.weight", 1, config.vocab_size, d)
    attention, feed_forward = [layered(name) for name in ATTENTION], [layered(name) for name in FEED_FORWARD]
    norms = layered("attention_norm"), layered("ffn_norm"), ("norm.weight", 1, 1, d)
    head = [] if config.tied else [(LLAMA2C.weights[HEAD][0], 1, config.vocab_size, d)]
    if legacy:
        rotation = [("", 1, config.block_size, config.head_dim // 2)] * 2
        return [table, norms[0], *attention, norms[1], *feed_forward, norms[2], *rotation, *head]
    return [*norms, table, *attention, *feed_forward, *head]
