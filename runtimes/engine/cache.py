"""KV caches of an onnxruntime session. A cache runs ids to logits and stores keys and values."""

from __future__ import annotations

import copy
import math
import mmap
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort

from runtimes.bundle.pin import MAX_THREADS
from runtimes.bundle.shape import cache_names, check_shape
from runtimes.engine.arrays import FloatArray, IdArray
from runtimes.engine.onnx_check import check_onnx
from runtimes.engine.signed_weights import make_weights_signed
from runtimes.system.memory import collapse_heap, trim_heap
from runtimes.types import check_number
from slm.console.counted import counted
from slm.console.errors import SlmxError, UsageError
from slm.presets import GPTConfig

# This key in a graph's metadata means that present is a new buffer, with the positions of past and the new ones.
CACHE_GROWS = "slmx.cache_grows"
# Input of a graph, int64 [1]: the number of last positions that get logits. Its default 0 gives logits to all.
LOGITS_TO_KEEP = "num_logits_to_keep"
ONE = ort.OrtValue.ortvalue_from_numpy(np.ones(1, np.int64))
LARGE_MODEL = 32 * 2**20  # bytes; from this size on, large pages save more time than the request for them takes
# Before this version, GroupQueryAttention lets a position attend to one position too many of a window.
EXACT_WINDOWS = (1, 24)
# How long a thread spins between two operators before it sleeps. A longer time is hardly faster on an idle machine,
# and it takes the core from other programs on a busy one (docs/runtime.md). onnxruntime before 1.26 spins longer.
SPIN_MICROSECONDS = 100


class Cache(Protocol):
    """The interface that a session needs: an onnxruntime graph has it here, a PyTorch module in comparisons."""

    def append(self, ids: IdArray, length: int, last_only: bool) -> FloatArray:
        """Runs ids [n] after `length` positions; returns logits [n, vocab], or [1, vocab] of the last alone."""

    def step(self, token: int, length: int) -> FloatArray:
        """Runs one id; returns its logits [vocab], in a buffer that the next step may overwrite."""

    def rewind(self, length: int) -> None:
        """Removes the positions from `length` on."""

    def copy(self, length: int) -> Cache:
        """Returns a separate cache with the first `length` positions."""


def open_onnx(
    model: Path | bytes | bytearray,
    threads: int,
    name: str = "",
    spin: int | None = SPIN_MICROSECONDS,
    signed: bool = True,
) -> ort.InferenceSession:
    """Opens a model with onnxruntime on the CPU.

    Args:
        model: A file, or its content. A bytearray is emptied, so that the memory is free whoever still holds it.
        threads: Threads inside an operator, 1 to 256.
        name: The name of the model in error messages; default: the file's path.
        spin: Microseconds that a thread spins between two operators; None is onnxruntime's default.
        signed: Whether 8-bit weights become signed in memory where that is exact.

    Raises:
        SlmxError: The number of threads is out of range, the model names weights in other files or operators of other
            packages, or onnxruntime cannot run it.
    """
    check_number("threads", threads, whole=True)
    if not 1 <= threads <= MAX_THREADS:
        raise UsageError(f"threads must be 1 to {MAX_THREADS}, not {threads}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # the exceptions have the same text
    if spin is not None:
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(spin))
    # An .ort file may name a file that holds its weights. No hash covers it, so none is read: this folder is none.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", f"{os.devnull}/none")
    # For tensors as small as a step's, the arena and its planning cost more than malloc: 4 % slower, more memory.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    where = name or (str(model) if isinstance(model, Path) else "model")
    try:
        read = model.read_bytes() if isinstance(model, Path) else model
        content = read if isinstance(read, bytearray) else bytearray(read)
        del read
        check_onnx(content, where)
        if signed:
            make_weights_signed(content)
        fixed = bytes(content)
        content.clear()
        session = ort.InferenceSession(fixed, options, providers=["CPUExecutionProvider"])
        session._model_bytes = None  # it is kept for other providers, and there are none
        return session
    except SlmxError:
        raise
    except Exception as error:  # onnxruntime raises its own types, which share no base class
        raise SlmxError(f"{where}: onnxruntime {ort.__version__} cannot open this model ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    """Returns the first line of an error of onnxruntime."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _version() -> tuple[int, int]:
    """Returns the version of onnxruntime."""
    major, minor = ort.__version__.split(".")[:2]
    return int(major), int(minor)


def _run(session: ort.InferenceSession, binding: ort.IOBinding) -> None:
    """Runs a graph; SlmxError if onnxruntime cannot, for example for lack of memory."""
    try:
        session.run_with_iobinding(binding)
    except Exception as error:
        raise SlmxError(f"onnxruntime {ort.__version__} cannot run this model ({_reason(error)})") from error


def keeps_logits(session: ort.InferenceSession) -> bool:
    """Returns whether a graph can compute the logits of the last positions only."""
    return any(value.name == LOGITS_TO_KEEP for value in session.get_overridable_initializers())


def lazy_zeros(shape: tuple[int, ...]) -> FloatArray:
    """Returns zeroed memory. The system provides each small page of it at the first write.

    numpy asks Linux for huge pages for large arrays. Then one position of each row would take whole huge pages.
    """
    size = math.prod(shape) * np.dtype(np.float32).itemsize
    if hasattr(mmap, "MAP_PRIVATE"):
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    else:  # Windows, where anonymous memory is always private
        pages = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with suppress(OSError):  # a kernel without huge pages does not know the advice
            pages.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(pages, np.float32).reshape(shape)


class SharedCache:
    """Keys and values of several rows in buffers [rows, heads, block_size, head_dim], bound as past and as present.

    GroupQueryAttention writes each new position into its place, so a step copies nothing. The mask is as long as the
    buffer. The number of ones in its row is the number of filled positions. The first n rows, and each single row, are
    views of the same memory and are bound by their address. Not thread-safe, but two caches of one onnxruntime session
    may run at the same time.
    """

    def __init__(self, session: ort.InferenceSession, config: GPTConfig, rows: int = 1) -> None:
        self._session, self._config, self.rows = session, config, rows
        self._past, self._present = cache_names(config.n_layer)
        self._keeps = keeps_logits(session)
        shape = (rows, config.kv_heads, config.block_size, config.head_dim)
        self._values = [lazy_zeros(shape) for _ in self._past]
        self._mask = np.zeros((rows, config.block_size), np.int64)
        self._ids = np.zeros((rows, 1), np.int64)
        self._positions = np.zeros((rows, 1), np.int64)
        self._logits = lazy_zeros((rows, 1, config.vocab_size))
        self._bindings: dict[int, ort.IOBinding] = {}
        self._binding = self._bind_rows(1)

    @property
    def row_bytes(self) -> int:
        """Bytes of the keys and values of one row."""
        return sum(value[0].nbytes for value in self._values)

    def _bind(self, ids: IdArray, positions: IdArray, logits: FloatArray, rows: slice) -> ort.IOBinding:
        """Binds inputs and outputs for consecutive rows of the buffers."""
        binding = self._session.io_binding()
        for name, array in (
            ("input_ids", ids),
            ("position_ids", positions),
            ("attention_mask", self._mask[rows]),
        ):
            binding.bind_input(name, "cpu", 0, np.int64, array.shape, array.ctypes.data)
        if logits.shape[1] < ids.shape[1]:
            binding.bind_ortvalue_input(LOGITS_TO_KEEP, ONE)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        for past, present, buffer in zip(self._past, self._present, self._values, strict=True):
            view = buffer[rows]
            place = ("cpu", 0, np.float32, view.shape, view.ctypes.data)
            binding.bind_input(past, *place)
            binding.bind_output(present, *place)
        return binding

    def _bind_rows(self, count: int) -> ort.IOBinding:
        """Returns the binding for a step of the first rows. It is made once."""
        if count not in self._bindings:
            first = slice(count)
            self._bindings[count] = self._bind(self._ids[first], self._positions[first], self._logits[first], first)
        return self._bindings[count]

    def append(self, ids: IdArray, length: int, last_only: bool, row: int = 0) -> FloatArray:
        """Runs ids [n] after `length` positions of a row; returns logits [n, vocab], or [1, vocab] of the last."""
        end = length + len(ids)
        kept = 1 if last_only and self._keeps else len(ids)
        logits = np.empty((1, kept, self._config.vocab_size), np.float32)
        positions = np.arange(length, end, dtype=np.int64)[None]
        ids = ids[None]
        binding = self._bind(ids, positions, logits, slice(row, row + 1))
        self._mask[row, length:end] = 1
        try:
            _run(self._session, binding)
        except Exception:
            self._mask[row, length:end] = 0
            raise
        found: FloatArray = logits[0, -1:] if last_only else logits[0]
        return found

    def step(self, token: int, length: int) -> FloatArray:
        """Runs one id in the first row; returns its logits [vocab] in a buffer that the next step overwrites."""
        self._ids[0, 0] = token
        self._positions[0, 0] = length
        self._mask[0, length] = 1
        _run(self._session, self._binding)
        row: FloatArray = self._logits[0, 0]
        return row

    def step_rows(self, tokens: Sequence[int], lengths: Sequence[int]) -> FloatArray:
        """Runs one id in each of the first rows; returns logits [n, vocab] in a buffer that the next step reuses."""
        count = len(tokens)
        if count == 1:  # without arrays of one number, which take longer
            return self.step(tokens[0], lengths[0])[None]
        self._ids[:count, 0] = tokens
        self._positions[:count, 0] = lengths
        self._mask[np.arange(count), lengths] = 1
        _run(self._session, self._bind_rows(count))
        logits: FloatArray = self._logits[:count, 0]
        return logits

    def rewind(self, length: int, row: int = 0) -> None:
        """Removes the positions from `length` on."""
        self._mask[row, length:] = 0

    def fill(self, row: int, source: SharedCache, source_row: int, length: int) -> None:
        """Fills a row with the first `length` positions of a row of this or another cache. It copies nothing else."""
        for ours, theirs in zip(self._values, source._values, strict=True):
            ours[row, :, :length] = theirs[source_row, :, :length]
        self._mask[row, :length] = 1
        self._mask[row, length:] = 0

    def copy(self, length: int) -> SharedCache:
        """Returns a separate cache of one row with the first `length` positions of the first row."""
        twin = self.empty(1)
        twin.fill(0, self, 0, length)
        return twin

    def empty(self, rows: int) -> SharedCache:
        """Returns a separate cache of the same onnxruntime session, without positions."""
        return SharedCache(self._session, self._config, rows)


class GrowingCache:
    """One sequence whose past is an input and whose longer present is an output.

    It is for graphs of standard operators, whose Attention cannot append in place.
    """

    def __init__(self, session: ort.InferenceSession, config: GPTConfig) -> None:
        self._session = session
        self._past, self._present = cache_names(config.n_layer)
        self._keeps = keeps_logits(session)
        empty = np.zeros((1, config.kv_heads, 0, config.head_dim), np.float32)
        self._values = [ort.OrtValue.ortvalue_from_numpy(empty) for _ in self._past]

    def append(self, ids: IdArray, length: int, last_only: bool) -> FloatArray:
        """Runs ids [n] after `length` positions; returns logits [n, vocab], or [1, vocab] of the last alone."""
        end = length + len(ids)
        kept = 1 if last_only and self._keeps else len(ids)
        binding = self._session.io_binding()
        if kept < len(ids):
            binding.bind_ortvalue_input(LOGITS_TO_KEEP, ONE)
        binding.bind_cpu_input("input_ids", ids[None])
        binding.bind_cpu_input("position_ids", np.arange(length, end, dtype=np.int64)[None])
        binding.bind_cpu_input("attention_mask", np.ones((1, end), np.int64))
        for name, value in zip(self._past, self._values, strict=True):
            binding.bind_ortvalue_input(name, value)
        for name in ("logits", *self._present):
            binding.bind_output(name)
        _run(self._session, binding)
        logits, *self._values = binding.get_outputs()
        if logits.shape()[:2] != [1, kept]:
            raise SlmxError(f"logits {logits.shape()} for {counted(kept, 'position')}: export the bundle again")
        rows: FloatArray = logits.numpy()[0]
        return rows[-1:] if last_only else rows

    def copy(self, length: int) -> GrowingCache:
        """Returns a separate cache with the first `length` positions."""
        twin = copy.copy(self)
        twin.rewind(length)
        return twin

    def step(self, token: int, length: int) -> FloatArray:
        """Runs one id; returns its logits [vocab]."""
        row: FloatArray = self.append(np.array([token], np.int64), length, last_only=False)[0]
        return row

    def rewind(self, length: int) -> None:
        """Removes the positions from `length` on."""
        self._values = [
            ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value.numpy()[:, :, :length]))
            for value in self._values
        ]


def open_cache(
    model: Path | bytes | bytearray, config: GPTConfig, threads: int, name: str = ""
) -> SharedCache | GrowingCache:
    """Opens a model with an empty cache of the kind that its graph needs. Arguments are those of `open_onnx`.

    Raises:
        SlmxError: As in `open_onnx`, or the graph has another shape than `config`.
    """
    size = model.stat().st_size if isinstance(model, Path) else len(model)
    session = open_onnx(model, threads, name)
    where = name or str(model if isinstance(model, Path) else "the model")
    trim_heap()
    if size >= LARGE_MODEL:
        collapse_heap()
    try:
        return _cache_of(session, config, where)
    except UnicodeDecodeError:  # onnxruntime gives names as they are stored
        raise SlmxError(f"{where}: a name in it is no UTF-8 text; copy it again, or export it again") from None


def _cache_of(session: ort.InferenceSession, config: GPTConfig, where: str) -> SharedCache | GrowingCache:
    check_shape(session, config, where)
    grows = CACHE_GROWS in session.get_modelmeta().custom_metadata_map
    if config.windows and not grows and _version() < EXACT_WINDOWS:
        raise SlmxError(
            f"{where}: onnxruntime {ort.__version__} computes attention windows wrongly; install onnxruntime "
            f"{'.'.join(map(str, EXACT_WINDOWS))} or later, or use --variant portable if the bundle holds it"
        )
    return GrowingCache(session, config) if grows else SharedCache(session, config)
