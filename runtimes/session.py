"""A model session over token ids: one KV cache buffer, appended to in place and never copied."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from slm.errors import SlmxError
from slm.presets import GPTConfig

FloatArray = npt.NDArray[np.float32]
# Below this many weights a step is shorter than waking a second thread pays for (docs/figures.json).
ONE_THREAD_PARAMETERS = 3_000_000


def default_threads(config: GPTConfig) -> int:
    """Threads for one step: one for the smallest models, else the cores this process may use, at most four."""
    if config.parameters < ONE_THREAD_PARAMETERS:
        return 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, usable)


def open_onnx(path: Path, threads: int) -> ort.InferenceSession:
    """An onnxruntime CPU session; SlmxError if the file is no model that it can run."""
    if threads < 1:
        raise SlmxError(f"threads must be at least 1, not {threads}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # For tensors as small as a step's, the arena and its planning cost more than malloc: 4 % slower, more memory.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own types, which share no base class
        first_line = str(error).splitlines()[0]
        raise SlmxError(f"{path}: onnxruntime {ort.__version__} cannot open this model ({first_line})") from error


class Session:
    """One sequence in progress: ids go in, logits float32 [vocab] come out, `length` positions are cached.

    Past and present are bound to the same buffers [1, heads, block_size, head_dim], so GroupQueryAttention
    writes each new position where it belongs. The cache may be rewound: what lies behind `length` is not read.
    """

    def __init__(self, model: Path, config: GPTConfig, threads: int | None = None) -> None:
        self.config = config
        self.threads = default_threads(config) if threads is None else threads
        self.length = 0
        self._session = open_onnx(model, self.threads)
        self._names = [f"{i}.{part}" for i in range(config.n_layer) for part in ("key", "value")]
        shape = (1, config.n_head, config.block_size, config.head_dim)
        self._cache = [ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32)) for _ in self._names]
        # One mask as long as the buffer, so that it is bound once; its ones say how many positions are filled.
        self._mask = np.zeros((1, config.block_size), np.int64)
        self._ids = np.zeros((1, 1), np.int64)
        self._position = np.zeros((1, 1), np.int64)
        logits = np.zeros((1, 1, config.vocab_size), np.float32)
        self._logits: FloatArray = logits[0, 0]
        self._binding = self._bind(self._ids, self._position, logits)

    def _bind(self, ids: npt.NDArray[np.int64], positions: npt.NDArray[np.int64], logits: FloatArray) -> ort.IOBinding:
        binding = self._session.io_binding()
        inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": self._mask}
        for name, array in inputs.items():
            binding.bind_input(name, "cpu", 0, np.int64, array.shape, array.ctypes.data)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        for name, value in zip(self._names, self._cache, strict=True):
            binding.bind_ortvalue_input(f"past_key_values.{name}", value)
            binding.bind_ortvalue_output(f"present.{name}", value)
        return binding

    def _run(self, binding: ort.IOBinding, new: int) -> None:
        end = self.length + new
        self._mask[0, self.length : end] = 1
        try:
            self._session.run_with_iobinding(binding)
        except Exception:
            self._mask[0, self.length : end] = 0
            raise
        self.length = end

    def prefill(self, ids: Sequence[int] | npt.NDArray[np.int64]) -> FloatArray:
        """Append ids in one run; the logits of each, float32 [n, vocab]. SlmxError past the context window."""
        end = self.length + len(ids)
        if not self.length < end <= self.config.block_size:
            raise SlmxError(f"{end} tokens do not fit the context of {self.config.block_size}; shorten the prompt")
        row = np.array([ids], np.int64)
        positions = np.arange(self.length, end, dtype=np.int64)[None]
        logits = np.empty((1, len(ids), self.config.vocab_size), np.float32)
        self._run(self._bind(row, positions, logits), len(ids))
        rows: FloatArray = logits[0]
        return rows

    def step(self, token: int) -> FloatArray:
        """Append one id; its logits float32 [vocab], valid until the next step."""
        if self.length >= self.config.block_size:
            raise SlmxError(f"the context of {self.config.block_size} tokens is full")
        self._ids[0, 0] = token
        self._position[0, 0] = self.length
        self._run(self._binding, 1)
        return self._logits

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` positions."""
        if not 0 <= length <= self.length:
            raise SlmxError(f"cannot rewind to {length}: {self.length} positions are cached")
        self._mask[0, length:] = 0
        self.length = length
