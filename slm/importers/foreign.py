"""A model of another program, and the way from it to a checkpoint, which is the same for every source.

A reader (Hugging Face, nanoGPT, llama2.c, GGUF) finds the shape, the tensors by their names in the source, and the
tokenizer. `slm.importers.names` knows what each program calls each weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slm.checkpoint import save_checkpoint
from slm.console.counted import counted
from slm.console.errors import SlmxError
from slm.console.notice import Log
from slm.denormals import denormals_line
from slm.folder_kind import CHECKPOINT_LISTING
from slm.importers.imported_tokenizer import ImportedTokenizer, some
from slm.importers.names import HEAD, WTE, Names
from slm.importers.vocabulary import Move
from slm.model import GPT
from slm.presets import PRESETS, GPTConfig
from slm.storage.atomic import atomic_folder
from slm.tokenizers.byte_level import missing_bytes
from slm.tokenizers.tokenizer import Tokenizer

# More rows than padding adds: the tokenizer is that of another model if more rows and a larger share have no token.
MOST_UNUSED_ROWS, MOST_UNUSED_SHARE = 1000, 0.02


@dataclass(frozen=True)
class ForeignModel:
    """A model as a reader found it.

    Attributes:
        where: The path, for messages.
        kind: What it is, such as "llama", for the record.
        config: The shape. `vocab_size` is the number of rows of the token table.
        names: What the source calls each weight.
        tensors: The weights in float32, by the names of the source, with matrices as [out, in].
        tokenizer: The tokenizer.
        record: What the training record says of the source.
        attention_factors: For each layer, the factor of the attention scores relative to 1 / sqrt(head_dim).
        zero_biases: Parts of a block, such as "attn.c_attn", that have no biases in the source.
        interleaved: Whether rotary positions turn the channel pairs (2 i, 2 i + 1) instead of (i, i + head_dim / 2).
        moved_to: The tokenizer that the checkpoint gets in place of `tokenizer`; None to keep `tokenizer`.
        has_tokenizer: Whether `tokenizer` came with the weights, so that it cannot be that of another model.
    """

    where: Path
    kind: str
    config: GPTConfig
    names: Names
    tensors: Mapping[str, Tensor]
    tokenizer: ImportedTokenizer
    record: Mapping[str, Any]
    attention_factors: tuple[float, ...] = ()
    zero_biases: tuple[str, ...] = ()
    interleaved: bool = False
    moved_to: ImportedTokenizer | None = None
    has_tokenizer: bool = True


def write_checkpoint(foreign: ForeignModel, out: Path, force: bool, log: Log) -> GPTConfig:
    """Writes the checkpoint of a foreign model.

    Args:
        foreign: The model.
        out: The folder of the checkpoint.
        force: Whether to replace a checkpoint that slmx wrote to `out`.
        log: Called with one line about each part of the model that is left out or changes its meaning.

    Returns:
        The shape of the model in the checkpoint.

    Raises:
        SlmxError: A weight is missing, left over or of another shape, the tokenizer does not fit the token table, or
            `out` cannot be written. Nothing is written then.
    """
    tokenizer, config = foreign.tokenizer, foreign.config
    state = foreign.names.collect(foreign.tensors, config, foreign.zero_biases, str(foreign.where))
    if foreign.interleaved:
        _make_halves(state, config)
    _scale_attention(state, config, foreign.attention_factors)
    if max(tokenizer.rows) >= config.vocab_size:
        raise SlmxError(
            f"{foreign.where}: the tokenizer has the id {max(tokenizer.rows)}, the token table only "
            f"{config.vocab_size} rows; use the tokenizer of this model"
        )
    unused = config.vocab_size - len(tokenizer.rows) - len(tokenizer.left_out)
    if not foreign.has_tokenizer and unused > max(MOST_UNUSED_ROWS, MOST_UNUSED_SHARE * config.vocab_size):
        raise SlmxError(
            f"{foreign.where}: the tokenizer has {tokenizer.tokenizer.vocab_size:,} tokens, the token table "
            f"{config.vocab_size:,} rows, so it is not the tokenizer of this model; use the one that the model was "
            "trained with"
        )
    for name in (WTE, HEAD):
        if name in state:
            state[name] = state[name][tokenizer.rows]
    imported = {"model_type": foreign.kind, **foreign.record}
    if foreign.moved_to is not None:
        imported["vocabulary"] = _move(state, tokenizer.tokenizer, foreign.moved_to.tokenizer, log)
        tokenizer, unused = foreign.moved_to, 0
    config = replace(config, vocab_size=tokenizer.tokenizer.vocab_size)
    config = _pad_heads(state, config)
    model = GPT(config)
    model.load_state_dict(state)
    if tokenizer.left_out:
        log(f"left out the special tokens {some(tokenizer.left_out)}: slmx reads them as plain text")
    if missing := missing_bytes(tokenizer.tokenizer.tokens):
        log(f"left out of every text: {counted(len(missing), 'rare byte')} for which the tokenizer has no token")
    if unused > 0:
        log(f"left out {counted(unused, 'row')} of the token table that no text can reach")
    if (line := denormals_line(state)) is not None:
        log(line)
    preset = next((preset.name for preset in PRESETS.values() if preset.config == config), "custom")
    record = {"imported": imported, "licence": "not stated"}
    if "licence" in foreign.record:
        record["licence"] = foreign.record["licence"]
    with atomic_folder(out, CHECKPOINT_LISTING, replace=force) as folder:
        save_checkpoint(folder, preset, model.eval(), tokenizer.tokenizer, tokenizer.merges, record)
    return config


def with_context(config: GPTConfig, block_size: int | None, where: Path) -> GPTConfig:
    """Returns a shape with a shorter context.

    Raises:
        SlmxError: The model has no such context.
    """
    if config.block_size < 2 or (block_size is not None and block_size < 2):
        raise SlmxError(f"{where}: a context of one token predicts nothing; slmx needs 2 or more")
    if block_size is None:
        return config
    if block_size > config.block_size:
        raise SlmxError(f"{where}: its context is {config.block_size:,} tokens; --block-size {block_size} is longer")
    return replace(config, block_size=block_size)


def _move(state: dict[str, Tensor], own: Tokenizer, new: Tokenizer, log: Log) -> dict[str, int]:
    """Gives the tables the rows of the new tokens; returns what the training record says of it."""
    move = Move.between(own, new)
    for name in (WTE, HEAD):
        if name in state:
            state[name] = move.table(state[name])
    log(
        f"moved from {own.vocab_size:,} tokens to the {new.vocab_size:,} of --tokenizer, of which {move.whole:,} are "
        "whole tokens of the model; fine-tune it, because it predicts worse until then"
    )
    return {"tokens": new.vocab_size, "whole": move.whole}


def _qkv(state: Mapping[str, Tensor], config: GPTConfig) -> list[tuple[int, str, tuple[Tensor, ...]]]:
    """Returns layer, name, and the parts for queries, keys and values, of each weight and bias of the attention."""
    sizes = [count * config.head_dim for count in (config.n_head, config.kv_heads, config.kv_heads)]
    names = [(i, f"h.{i}.attn.c_attn.{part}") for i in range(config.n_layer) for part in ("weight", "bias")]
    return [(layer, name, torch.split(state[name], sizes)) for layer, name in names if name in state]


def _make_halves(state: dict[str, Tensor], config: GPTConfig) -> None:
    """Puts the channels 0, 2, 4, ... of each head before the channels 1, 3, 5, ..., in queries and keys."""

    def halves(rows: Tensor) -> Tensor:
        pairs = rows.view(-1, config.head_dim // 2, 2, *rows.shape[1:])
        return pairs.transpose(1, 2).reshape(rows.shape)

    for _, name, (q, k, v) in _qkv(state, config):
        state[name] = torch.cat((halves(q), halves(k), v))


def _scale_attention(state: dict[str, Tensor], config: GPTConfig, factors: tuple[float, ...]) -> None:
    """Multiplies queries and keys so that the attention scores get a factor, half of it on each side."""
    for layer, name, (q, k, v) in _qkv(state, config):
        if factors and factors[layer] != 1:
            root = math.sqrt(factors[layer])
            state[name] = torch.cat((q * root, k * root, v))


def _pad_heads(state: dict[str, Tensor], config: GPTConfig) -> GPTConfig:
    """Adds channels of zeros to heads that onnxruntime's attention does not take; returns the new shape.

    Rotary positions depend on the number of channels, so such models keep their heads.
    """
    old, multiple = config.head_dim, config.fused_head_multiple
    new = -(-old // multiple) * multiple
    if config.rope_theta or new == old:
        return config

    def padded(rows: Tensor) -> Tensor:
        heads = rows.view(-1, old, *rows.shape[1:])
        zeros = heads.new_zeros(len(heads), new - old, *rows.shape[1:])
        return torch.cat((heads, zeros), dim=1).reshape(-1, *rows.shape[1:])

    for _, name, parts in _qkv(state, config):
        state[name] = torch.cat([padded(part) for part in parts])
    for layer in range(config.n_layer):
        name = f"h.{layer}.attn.c_proj.weight"
        state[name] = padded(state[name].t()).t().contiguous()
    wider = replace(config, head_size=new)
    # The scores are divided by the square root of the new width.
    _scale_attention(state, wider, (math.sqrt(new / old),) * config.n_layer)
    return wider
