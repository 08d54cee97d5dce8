"""A model session over token ids and its KV cache."""

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
IdArray = npt.NDArray[np.int64]
# A graph says by this key in its metadata that present is past and more, not the same buffer.
CACHE_GROWS = "slmx.cache_grows"
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


def cache_names(n_layer: int) -> tuple[list[str], list[str]]:
    """Input and output names of a graph's KV cache, layer by layer, key before value."""
    layers = [(layer, part) for layer in range(n_layer) for part in ("key", "value")]
    return [f"past_key_values.{i}.{part}" for i, part in layers], [f"present.{i}.{part}" for i, part in layers]


class SharedCache:
    """Past and present bound to the same buffers [1, heads, block_size, head_dim].

    GroupQueryAttention writes each new position where it belongs, so that nothing is copied. One mask as long as
    the buffer is bound once; its ones say how many positions are filled.
    """

    def __init__(self, session: ort.InferenceSession, config: GPTConfig) -> None:
        self._session = session
        self._past, self._present = cache_names(config.n_layer)
        shape = (1, config.n_head, config.block_size, config.head_dim)
        self._values = [ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32)) for _ in self._past]
        self._mask = np.zeros((1, config.block_size), np.int64)
        self._ids = np.zeros((1, 1), np.int64)
        self._positions = np.zeros((1, 1), np.int64)
        logits = np.zeros((1, 1, config.vocab_size), np.float32)
        self._logits: FloatArray = logits[0]
        self._binding = self._bind(self._ids, self._positions, logits)

    def _bind(self, ids: IdArray, positions: IdArray, logits: FloatArray) -> ort.IOBinding:
        binding = self._session.io_binding()
        inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": self._mask}
        for name, array in inputs.items():
            binding.bind_input(name, "cpu", 0, np.int64, array.shape, array.ctypes.data)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        for past, present, value in zip(self._past, self._present, self._values, strict=True):
            binding.bind_ortvalue_input(past, value)
            binding.bind_ortvalue_output(present, value)
        return binding

    def _run(self, binding: ort.IOBinding, length: int, end: int) -> None:
        self._mask[0, length:end] = 1
        try:
            self._session.run_with_iobinding(binding)
        except Exception:
            self._mask[0, length:end] = 0
            raise

    def append(self, ids: IdArray, length: int) -> FloatArray:
        """Run ids [n] behind `length` positions; their logits [n, vocab]."""
        end = length + len(ids)
        logits = np.empty((1, len(ids), self._logits.shape[1]), np.float32)
        positions = np.arange(length, end, dtype=np.int64)[None]
        row = ids[None]
        self._run(self._bind(row, positions, logits), length, end)
        rows: FloatArray = logits[0]
        return rows

    def step(self, token: int, length: int) -> FloatArray:
        """Run one id; its logits [1, vocab] in a buffer that the next step overwrites."""
        self._ids[0, 0] = token
        self._positions[0, 0] = length
        self._run(self._binding, length, length + 1)
        return self._logits

    def rewind(self, length: int) -> None:
        """Let positions from `length` on be no part of the sequence."""
        self._mask[0, length:] = 0


class GrowingCache:
    """Past in, a longer present out: for graphs of standard operators, whose Attention cannot append in place."""

    def __init__(self, session: ort.InferenceSession, config: GPTConfig) -> None:
        self._session = session
        self._past, self._present = cache_names(config.n_layer)
        empty = np.zeros((1, config.n_head, 0, config.head_dim), np.float32)
        self._values = [ort.OrtValue.ortvalue_from_numpy(empty) for _ in self._past]

    def append(self, ids: IdArray, length: int) -> FloatArray:
        """Run ids [n] behind `length` positions; their logits [n, vocab]."""
        end = length + len(ids)
        binding = self._session.io_binding()
        binding.bind_cpu_input("input_ids", ids[None])
        binding.bind_cpu_input("position_ids", np.arange(length, end, dtype=np.int64)[None])
        binding.bind_cpu_input("attention_mask", np.ones((1, end), np.int64))
        for name, value in zip(self._past, self._values, strict=True):
            binding.bind_ortvalue_input(name, value)
        for name in ("logits", *self._present):
            binding.bind_output(name)
        self._session.run_with_iobinding(binding)
        logits, *self._values = binding.get_outputs()
        rows: FloatArray = logits.numpy()[0]
        return rows

    def step(self, token: int, length: int) -> FloatArray:
        """Run one id; its logits [1, vocab]."""
        return self.append(np.array([token], np.int64), length)

    def rewind(self, length: int) -> None:
        """Cut the cache to `length` positions."""
        self._values = [
            ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value.numpy()[:, :, :length]))
            for value in self._values
        ]


class Session:
    """One sequence in progress: ids go in, logits float32 [vocab] come out, `length` positions are cached.

    The cache may be rewound: what lies behind `length` is not read.
    """

    def __init__(self, model: Path, config: GPTConfig, threads: int | None = None) -> None:
        self.config = config
        self.threads = default_threads(config) if threads is None else threads
        self.length = 0
        session = open_onnx(model, self.threads)
        grows = CACHE_GROWS in session.get_modelmeta().custom_metadata_map
        self._cache = GrowingCache(session, config) if grows else SharedCache(session, config)

    def prefill(self, ids: Sequence[int] | IdArray) -> FloatArray:
        """Append ids in one run; the logits of each, float32 [n, vocab]. SlmxError past the context window."""
        end = self.length + len(ids)
        if not self.length < end <= self.config.block_size:
            raise SlmxError(f"{end} tokens do not fit the context of {self.config.block_size}; shorten the prompt")
        logits = self._cache.append(np.array(ids, np.int64), self.length)
        self.length = end
        return logits

    def step(self, token: int) -> FloatArray:
        """Append one id; its logits float32 [vocab], valid until the next step."""
        if self.length >= self.config.block_size:
            raise SlmxError(f"the context of {self.config.block_size} tokens is full")
        logits = self._cache.step(token, self.length)
        self.length += 1
        row: FloatArray = logits[0]
        return row

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` positions."""
        if not 0 <= length <= self.length:
            raise SlmxError(f"cannot rewind to {length}: {self.length} positions are cached")
        self._cache.rewind(length)
        self.length = length
