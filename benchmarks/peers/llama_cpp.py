"""llama.cpp, through the C interface that llama-cpp-python brings, on a GGUF file written from the same weights.

The file is of architecture "gpt2" (tensor names: llama.cpp, gguf-py/gguf/constants.py); `gguf` quantizes. Matrices and
the token table take the given type, norms, biases and positions stay float32, as llama.cpp's own converter leaves
them. The head is a tensor of its own there: llama.cpp makes a copy of the table when it finds none.
"""

from __future__ import annotations

import ctypes
import logging
import time
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import numpy.typing as npt

from slm.checkpoint import Checkpoint
from slm.errors import SlmxError
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


class LlamaCpp:
    """One GGUF model and one sequence, driven token by token without llama-cpp-python's own Python loop."""

    def __init__(self, path: Path, block_size: int, threads: int) -> None:
        self._silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self._silent, ctypes.c_void_p(0))
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        if not self._model:
            raise SlmxError(f"{path}: llama.cpp cannot open this model")
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = block_size
        settings.n_threads = settings.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, settings)
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))

    def _decode(self, ids: list[int]) -> npt.NDArray[np.float32]:
        """Append ids; the logits [vocab] of the last one, where llama.cpp keeps them."""
        tokens = (llama_cpp.llama_token * len(ids))(*ids)
        if llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(tokens, len(ids))):
            raise SlmxError("llama.cpp cannot decode")
        logits: npt.NDArray[np.float32] = np.ctypeslib.as_array(
            llama_cpp.llama_get_logits_ith(self._context, -1), (self._vocab_size,)
        )
        return logits

    def logits(self, prompt: list[int]) -> npt.NDArray[np.float32]:
        """Logits [vocab] behind a prompt."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)
        return self._decode(prompt).copy()

    def greedy_seconds(self, prompt: list[int], tokens: int) -> float:
        """Seconds for greedy steps, the prefill of the prompt not among them."""
        logits = self.logits(prompt)
        started = time.perf_counter()
        for _ in range(tokens):
            logits = self._decode([int(logits.argmax())])
        return time.perf_counter() - started
