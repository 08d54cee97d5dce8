"""llama.cpp on a GGUF file with the same weights, through the C interface that llama-cpp-python contains.

Except for the threads and the size of the context, all settings are the defaults: the KV cache is float16.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import llama_cpp
import numpy as np
import numpy.typing as npt

from benchmarks.peers import run_steps
from benchmarks.report.record import Round
from slm.errors import SlmxError

MODEL_FILE = "model.gguf"


def prepare(checkpoint: Path, bundle: Path, folder: Path, kind: str) -> None:
    """Write the weights as a GGUF file with matrices in F32, Q8_0 or Q4_0."""
    from benchmarks.peers.gguf_file import write_gguf
    from slm.checkpoint import load_checkpoint

    write_gguf(load_checkpoint(checkpoint), folder / MODEL_FILE, kind)


class LlamaCpp:
    """One GGUF model and one sequence. It runs token by token, without the Python loop of llama-cpp-python."""

    def __init__(self, path: Path, threads: int) -> None:
        self._silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self._silent, ctypes.c_void_p(0))
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        if not self._model:
            raise SlmxError(f"{path}: llama.cpp cannot open this model; prepare it again")
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = llama_cpp.llama_model_n_ctx_train(self._model)
        settings.n_threads = settings.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, settings)
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))

    def _decode(self, ids: list[int]) -> npt.NDArray[np.float32]:
        """Append ids and return the logits [vocab] of the last one. The array is llama.cpp's own buffer."""
        tokens = (llama_cpp.llama_token * len(ids))(*ids)
        if llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(tokens, len(ids))):
            raise SlmxError("llama.cpp cannot decode; request no more ids than the context holds")
        logits: npt.NDArray[np.float32] = np.ctypeslib.as_array(
            llama_cpp.llama_get_logits_ith(self._context, -1), (self._vocab_size,)
        )
        return logits

    def _reset(self) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)

    def read(self, ids: list[int]) -> npt.NDArray[np.float32]:
        """Return the logits float32 [ids, vocab] after each of the ids; see `Reader`."""
        self._reset()
        batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
        try:
            batch.n_tokens = len(ids)
            for place, token in enumerate(ids):
                batch.token[place], batch.pos[place], batch.logits[place] = token, place, 1
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
            if llama_cpp.llama_decode(self._context, batch):
                raise SlmxError("llama.cpp cannot decode; request no more ids than the context holds")
            logits = llama_cpp.llama_get_logits(self._context)
            return np.ctypeslib.as_array(logits, (len(ids), self._vocab_size)).copy()
        finally:
            llama_cpp.llama_batch_free(batch)

    def greedy(self, prompt: list[int], new_tokens: int) -> Round:
        """Write exactly `new_tokens` ids after a prompt; see `Peer`."""
        self._reset()
        return run_steps(lambda ids: int(self._decode(ids).argmax()), prompt, new_tokens)


def open_peer(folder: Path, threads: int) -> LlamaCpp:
    """Load a prepared folder."""
    return LlamaCpp(folder / MODEL_FILE, threads)
