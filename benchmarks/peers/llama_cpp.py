"""llama.cpp on a GGUF file with the same weights, through the C interface that llama-cpp-python contains.

Except for the threads and the size of the context, all settings are the defaults: the KV cache is float16.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from benchmarks.peers import run_steps
from benchmarks.report.record import Round
from slm.console.errors import SlmxError

MODEL_FILE = "model.gguf"


def prepare(checkpoint: Path, bundle: Path, folder: Path, kind: str) -> None:
    """Writes the weights as a GGUF file with matrices in F32, Q8_0 or Q4_0."""
    from benchmarks.peers.gguf_file import write_gguf
    from slm.checkpoint import load_checkpoint

    write_gguf(load_checkpoint(checkpoint), folder / MODEL_FILE, kind)


class _Batch:
    """A llama_batch with equally many ids for each row, and logits after the last of each row or after all of them.

    The arrays are the memory that llama.cpp reads. So a step changes two columns, and builds nothing while it is timed.
    """

    def __init__(self, rows: int, ids: Sequence[int], start: int, every: bool = False) -> None:
        shape = (rows, len(ids))
        self.tokens = np.tile(np.array(ids, np.int32), (rows, 1))
        self.positions = np.tile(np.arange(start, start + len(ids), dtype=np.int32), (rows, 1))
        self._counts = np.ones(shape, np.int32)
        self._rows = np.repeat(np.arange(rows, dtype=np.int32), len(ids))
        self._row_pointers = self._rows.ctypes.data + self._rows.itemsize * np.arange(self._rows.size, dtype=np.uint64)
        self._wanted = np.full(shape, every, np.int8)
        self._wanted[:, -1] = 1
        self.outputs = int(self._wanted.sum())
        fields: dict[str, npt.NDArray[Any]] = {
            "token": self.tokens,
            "pos": self.positions,
            "n_seq_id": self._counts,
            "seq_id": self._row_pointers,
            "logits": self._wanted,
        }
        kinds = dict(llama_cpp.llama_batch._fields_)
        pointers = {name: array.ctypes.data_as(kinds[name]) for name, array in fields.items()}
        self.batch = llama_cpp.llama_batch(n_tokens=self._rows.size, **pointers)


class LlamaCpp:
    """One GGUF model. It runs step by step, without the Python loop of llama-cpp-python."""

    def __init__(self, path: Path, threads: int) -> None:
        self._silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self._silent, ctypes.c_void_p(0))
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        if not self._model:
            raise SlmxError(f"{path}: llama.cpp cannot open this model; prepare it again")
        self._threads = threads
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._open_context(1)

    def _open_context(self, rows: int) -> None:
        """Makes room for some rows. Each has its own part of the cache, of the length of the model's context."""
        length = llama_cpp.llama_model_n_ctx_train(self._model)
        settings = llama_cpp.llama_context_default_params()
        settings.n_seq_max = rows
        settings.n_ctx = settings.n_batch = rows * length
        settings.n_ubatch = length
        settings.n_threads = settings.n_threads_batch = self._threads
        self._rows = rows
        self._context = llama_cpp.llama_init_from_model(self._model, settings)
        if not self._context:
            raise SlmxError(f"llama.cpp has no room for {rows} rows of {length} ids; close other programs")

    def _reset(self, rows: int) -> None:
        """Empties the cache, which has room for this many rows afterwards."""
        if rows != self._rows:
            llama_cpp.llama_free(self._context)
            self._open_context(rows)
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)

    def _decode(self, batch: _Batch) -> npt.NDArray[np.float32]:
        """Appends ids and returns their logits [outputs, vocab]. The array is llama.cpp's own buffer."""
        if llama_cpp.llama_decode(self._context, batch.batch):
            raise SlmxError("llama.cpp cannot decode; request no more ids than the context holds")
        logits: npt.NDArray[np.float32] = np.ctypeslib.as_array(
            llama_cpp.llama_get_logits(self._context), (batch.outputs, self._vocab_size)
        )
        return logits

    def read(self, ids: list[int]) -> npt.NDArray[np.float32]:
        """Returns the logits float32 [ids, vocab] after each of the ids; see `Reader`."""
        self._reset(1)
        return self._decode(_Batch(1, ids, 0, every=True)).copy()

    def greedy(self, prompt: list[int], new_tokens: int, history: Sequence[int] = (), rows: int = 1) -> Round:
        """Writes exactly `new_tokens` ids after a prompt; see `RowWriter`. The rows read the prompt in one batch."""
        self._reset(rows)
        if history:
            self._decode(_Batch(rows, history, 0))
        reading = _Batch(rows, prompt, len(history))
        stepping = _Batch(rows, prompt[-1:], len(history) + len(prompt) - 1)

        def step(ids: list[int]) -> list[int]:
            stepping.tokens[:, 0] = ids
            stepping.positions += 1
            return self._likeliest(stepping)

        return run_steps(lambda: self._likeliest(reading), step, new_tokens)

    def _likeliest(self, batch: _Batch) -> list[int]:
        found: list[int] = self._decode(batch).argmax(-1).tolist()
        return found


def open_peer(folder: Path, threads: int) -> LlamaCpp:
    """Loads a prepared folder."""
    return LlamaCpp(folder / MODEL_FILE, threads)
