"""KV caches over an onnxruntime session: how ids become logits, and where keys and values lie meanwhile."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from runtimes.bundle.shape import check_shape
from runtimes.system.machine import busy_others, usable_cores
from runtimes.system.memory import collapse_heap, trim_heap
from slm.errors import SlmxError
from slm.presets import GPTConfig

FloatArray = npt.NDArray[np.float32]
IdArray = npt.NDArray[np.int64]
# A graph says by this key in its metadata that present is past and more, not the same buffer.
CACHE_GROWS = "slmx.cache_grows"
# Input of a graph, int64 [1]: how many of the last positions get logits; left out, it is 0 and all do.
LOGITS_TO_KEEP = "num_logits_to_keep"
ONE = ort.OrtValue.ortvalue_from_numpy(np.ones(1, np.int64))
MAX_THREADS = 256
LARGE_MODEL = 32 * 2**20  # bytes from which on large pages gain more than asking for them costs
BUSY = 0.3  # processors' worth of other programs that are no reason to stop spinning


class Cache(Protocol):
    """What a session asks of whatever runs its model: an onnxruntime graph here, a PyTorch module in comparisons."""

    def append(self, ids: IdArray, length: int, last_only: bool) -> FloatArray:
        """Run ids [n] behind `length` positions; logits [n, vocab], or [1, vocab] of the last alone."""

    def step(self, token: int, length: int) -> FloatArray:
        """Run one id; its logits [vocab], in a buffer that the next step may overwrite."""

    def rewind(self, length: int) -> None:
        """Let positions from `length` on be no part of the sequence."""

    def copy(self) -> Cache:
        """The same positions, to go their own way."""


def open_onnx(path: Path, threads: int) -> ort.InferenceSession:
    """An onnxruntime CPU session; SlmxError if the file is no model that it can run."""
    if not 1 <= threads <= MAX_THREADS:
        raise SlmxError(f"threads must be 1 to {MAX_THREADS}, not {threads}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if threads > 1 and threads + busy_others() > usable_cores() + BUSY:
        # A thread that spins between operators takes the core from whoever shares it, and waits for its own turn.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
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


def keeps_logits(session: ort.InferenceSession) -> bool:
    """Whether a graph can leave out the logits of all but the last positions."""
    return any(value.name == LOGITS_TO_KEEP for value in session.get_overridable_initializers())


class SharedCache:
    """Past and present bound to the same buffers [rows, heads, block_size, head_dim].

    GroupQueryAttention writes each new position where it belongs, so that nothing is copied. One mask as long as
    the buffer is bound once; its ones say how many positions of each row are filled.
    """

    def __init__(self, session: ort.InferenceSession, config: GPTConfig, rows: int = 1) -> None:
        self._session, self._config = session, config
        self._past, self._present = cache_names(config.n_layer)
        self._keeps = keeps_logits(session)
        shape = (rows, config.n_head, config.block_size, config.head_dim)
        # Zeroed memory takes no room before it is written to: a short story touches little of a long context.
        self._values = [np.zeros(shape, np.float32) for _ in self._past]
        self._mask = np.zeros((rows, config.block_size), np.int64)
        self._ids = np.zeros((rows, 1), np.int64)
        self._positions = np.zeros((rows, 1), np.int64)
        logits = np.zeros((rows, 1, config.vocab_size), np.float32)
        self._logits: FloatArray = logits[:, 0]
        self._binding = self._bind(self._ids, self._positions, logits)

    @classmethod
    def stack(cls, caches: Sequence[SharedCache]) -> SharedCache:
        """One cache whose rows are copies of all rows of these."""
        whole = cls(caches[0]._session, caches[0]._config, sum(len(cache._mask) for cache in caches))
        whole._mask[:] = np.concatenate([cache._mask for cache in caches])
        for number, value in enumerate(whole._values):
            np.concatenate([cache._values[number] for cache in caches], out=value)
        return whole

    def select(self, rows: Sequence[int]) -> SharedCache:
        """A copy of some rows."""
        part = SharedCache(self._session, self._config, len(rows))
        part._mask[:] = self._mask[rows]
        for ours, theirs in zip(part._values, self._values, strict=True):
            ours[:] = theirs[rows]
        return part

    def copy(self) -> SharedCache:
        """The same positions in buffers of their own."""
        return self.select(range(len(self._mask)))

    def _bind(self, ids: IdArray, positions: IdArray, logits: FloatArray) -> ort.IOBinding:
        binding = self._session.io_binding()
        inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": self._mask}
        for name, array in inputs.items():
            binding.bind_input(name, "cpu", 0, np.int64, array.shape, array.ctypes.data)
        if logits.shape[1] < ids.shape[1]:
            binding.bind_ortvalue_input(LOGITS_TO_KEEP, ONE)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        for past, present, value in zip(self._past, self._present, self._values, strict=True):
            place = ("cpu", 0, np.float32, value.shape, value.ctypes.data)
            binding.bind_input(past, *place)
            binding.bind_output(present, *place)
        return binding

    def _run(self, binding: ort.IOBinding, length: int, end: int) -> None:
        self._mask[0, length:end] = 1
        try:
            self._session.run_with_iobinding(binding)
        except Exception:
            self._mask[0, length:end] = 0
            raise

    def append(self, ids: IdArray, length: int, last_only: bool) -> FloatArray:
        """Run ids [n] behind `length` positions; logits [n, vocab], or [1, vocab] of the last alone."""
        end = length + len(ids)
        kept = 1 if last_only and self._keeps else len(ids)
        logits = np.empty((1, kept, self._logits.shape[1]), np.float32)
        positions = np.arange(length, end, dtype=np.int64)[None]
        row = ids[None]
        self._run(self._bind(row, positions, logits), length, end)
        rows: FloatArray = logits[0, -1:] if last_only else logits[0]
        return rows

    def step(self, token: int, length: int) -> FloatArray:
        """Run one id; its logits [vocab] in a buffer that the next step overwrites."""
        self._ids[0, 0] = token
        self._positions[0, 0] = length
        self._run(self._binding, length, length + 1)
        row: FloatArray = self._logits[0]
        return row

    def step_rows(self, tokens: Sequence[int], lengths: Sequence[int]) -> FloatArray:
        """Run one id in each row; the logits [rows, vocab] in a buffer that the next step overwrites."""
        self._ids[:, 0] = tokens
        self._positions[:, 0] = lengths
        self._mask[np.arange(len(tokens)), lengths] = 1
        self._session.run_with_iobinding(self._binding)
        return self._logits

    def rewind(self, length: int) -> None:
        """Let positions from `length` on be no part of the sequence."""
        self._mask[0, length:] = 0


class GrowingCache:
    """Past in, a longer present out: for graphs of standard operators, whose Attention cannot append in place."""

    def __init__(self, session: ort.InferenceSession, config: GPTConfig) -> None:
        self._session = session
        self._past, self._present = cache_names(config.n_layer)
        self._keeps = keeps_logits(session)
        empty = np.zeros((1, config.n_head, 0, config.head_dim), np.float32)
        self._values = [ort.OrtValue.ortvalue_from_numpy(empty) for _ in self._past]

    def append(self, ids: IdArray, length: int, last_only: bool) -> FloatArray:
        """Run ids [n] behind `length` positions; logits [n, vocab], or [1, vocab] of the last alone."""
        end = length + len(ids)
        binding = self._session.io_binding()
        if last_only and self._keeps:
            binding.bind_ortvalue_input(LOGITS_TO_KEEP, ONE)
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
        return rows[-1:] if last_only else rows

    def copy(self) -> GrowingCache:
        """The same positions; no step changes a past, so it may be shared."""
        twin = copy.copy(self)
        twin._values = list(self._values)
        return twin

    def step(self, token: int, length: int) -> FloatArray:
        """Run one id; its logits [vocab]."""
        row: FloatArray = self.append(np.array([token], np.int64), length, last_only=False)[0]
        return row

    def rewind(self, length: int) -> None:
        """Cut the cache to `length` positions."""
        self._values = [
            ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value.numpy()[:, :, :length]))
            for value in self._values
        ]


def open_cache(model: Path, config: GPTConfig, threads: int) -> SharedCache | GrowingCache:
    """An empty cache over an ONNX file, of the kind that its graph needs; SlmxError as in `open_onnx`."""
    session = open_onnx(model, threads)
    check_shape(session, config, str(model))
    trim_heap()
    if model.stat().st_size >= LARGE_MODEL:
        collapse_heap()
    grows = CACHE_GROWS in session.get_modelmeta().custom_metadata_map
    return GrowingCache(session, config) if grows else SharedCache(session, config)
