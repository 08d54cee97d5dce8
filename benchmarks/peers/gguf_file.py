"""Writes a checkpoint as a GGUF file, the format of llama.cpp.

The architecture is "gpt2", or "llama" for a shape with rotary positions. The package `gguf` quantizes. Matrices and the
token table have the given type. Norms, biases and positions stay float32, as in the files of llama.cpp's own converter.
The file has no tensor for the head, so llama.cpp uses a copy of the token table.
"""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path

import gguf
from torch import Tensor

from slm.checkpoint import Checkpoint
from slm.importers.gguf_tokenizer import PRE_TOKENIZERS
from slm.importers.names import GGUF_GPT2, GGUF_LLAMA, WPE
from slm.tokenizers.sentencepiece import BYTES
from slm.tokenizers.tokenizer_json import spell

TYPES = {
    "F32": gguf.GGMLQuantizationType.F32,
    "Q8_0": gguf.GGMLQuantizationType.Q8_0,
    "Q4_0": gguf.GGMLQuantizationType.Q4_0,
}
(POSITIONS,) = GGUF_GPT2.weights[WPE]
ROTARY = ("attn_q.weight", "attn_k.weight")


def write_gguf(checkpoint: Checkpoint, path: Path, kind: str) -> None:
    """Writes a checkpoint as GGUF with its matrices as F32, Q8_0 or Q4_0."""
    config = checkpoint.model.config
    logging.getLogger("gguf").setLevel(logging.WARNING)
    is_llama = bool(config.rope_theta)
    writer = gguf.GGUFWriter(path, "llama" if is_llama else "gpt2")
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.inner)
    writer.add_head_count(config.n_head)
    if is_llama:
        writer.add_head_count_kv(config.kv_heads)
        writer.add_layer_norm_rms_eps(config.norm_eps)
        writer.add_rope_freq_base(config.rope_theta)
        writer.add_rope_dimension_count(config.head_dim)
    else:
        writer.add_layer_norm_eps(config.norm_eps)
    _add_tokenizer(writer, checkpoint)
    for name, tensor in _tensors(checkpoint).items():
        array = tensor.numpy()
        wide = array.ndim == 2 and name != POSITIONS
        target = TYPES[kind] if wide else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(array, target), raw_dtype=target)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@cache
def tensor_bytes(path: Path) -> int:
    """Returns the bytes of the tensors in a GGUF file, without its tokenizer and its settings."""
    return sum(int(tensor.n_bytes) for tensor in gguf.GGUFReader(path).tensors)


def _add_tokenizer(writer: gguf.GGUFWriter, checkpoint: Checkpoint) -> None:
    tokenizer, scheme = checkpoint.tokenizer, checkpoint.tokenizer.settings.scheme
    pieces = scheme == "sentencepiece"
    ordinary = spell(tokenizer.tokens, scheme)
    types = [
        gguf.TokenType.BYTE if pieces and number < BYTES else gguf.TokenType.NORMAL for number in range(len(ordinary))
    ]
    writer.add_tokenizer_model("llama" if pieces else "gpt2")
    writer.add_token_list([*ordinary, *tokenizer.specials])
    writer.add_token_types([*types, *[gguf.TokenType.CONTROL] * len(tokenizer.specials)])
    if pieces:
        writer.add_token_scores([-float(number) for number in range(tokenizer.vocab_size)])
        writer.add_add_space_prefix(tokenizer.drops_space)
    else:
        names = {scheme: name for name, scheme in PRE_TOKENIZERS.items()}
        writer.add_tokenizer_pre(names[scheme])
        writer.add_token_merges([f"{left} {right}" for left, right in checkpoint.merges])
    writer.add_bos_token_id(tokenizer.begin)
    writer.add_eos_token_id(tokenizer.end_of_text)


def _tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Returns the weights with the names and the order of rows that GGUF has."""
    config, state = checkpoint.model.config, checkpoint.model.state_dict()
    if not config.rope_theta:
        return GGUF_GPT2.divide(state, config)
    return {
        name: _interleave(tensor, config.head_dim) if name.endswith(ROTARY) else tensor
        for name, tensor in GGUF_LLAMA.divide(state, config).items()
    }


def _interleave(tensor: Tensor, head_dim: int) -> Tensor:
    """Orders the rows of a query or key matrix so that the two rows of a rotary pair are beside each other."""
    rows, width = tensor.shape
    return tensor.view(rows // head_dim, 2, head_dim // 2, width).transpose(1, 2).reshape(rows, width).contiguous()
