"""Writes a checkpoint as a GGUF file, the format of llama.cpp.

The architecture is "gpt2". Its tensor names are in gguf-py/gguf/constants.py of llama.cpp. The package `gguf`
quantizes. Matrices and the token table have the given type. Norms, biases and positions stay float32, as in the files
of llama.cpp's own converter. The file has no tensor for the head, so llama.cpp uses a copy of the token table.
"""

from __future__ import annotations

import logging
from pathlib import Path

import gguf

from slm.checkpoint import Checkpoint
from slm.tokenizer import END_OF_TEXT, to_unicode

TYPES = {
    "F32": gguf.GGMLQuantizationType.F32,
    "Q8_0": gguf.GGMLQuantizationType.Q8_0,
    "Q4_0": gguf.GGMLQuantizationType.Q4_0,
}
BLOCK_NAMES = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
NAMES = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}


def write_gguf(checkpoint: Checkpoint, path: Path, kind: str) -> None:
    """Write a checkpoint as GGUF with its matrices as F32, Q8_0 or Q4_0."""
    config, tokenizer = checkpoint.model.config, checkpoint.tokenizer
    logging.getLogger("gguf").setLevel(logging.WARNING)
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*map(to_unicode, tokenizer.ranks), END_OF_TEXT])
    writer.add_token_types([gguf.TokenType.NORMAL] * len(tokenizer.ranks) + [gguf.TokenType.CONTROL])
    writer.add_token_merges([f"{left} {right}" for left, right in checkpoint.merges])
    writer.add_bos_token_id(tokenizer.end_of_text)
    writer.add_eos_token_id(tokenizer.end_of_text)
    for name, tensor in checkpoint.model.state_dict().items():
        array = tensor.numpy()
        wide = array.ndim == 2 and name != "wpe.weight"
        target = TYPES[kind] if wide else gguf.GGMLQuantizationType.F32
        writer.add_tensor(_gguf_name(name), gguf.quants.quantize(array, target), raw_dtype=target)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf_name(name: str) -> str:
    stem, _, part = name.rpartition(".")
    if not stem.startswith("h."):
        return f"{NAMES[stem]}.{part}"
    _, layer, inner = stem.split(".", 2)
    return f"blk.{layer}.{BLOCK_NAMES[inner]}.{part}"
