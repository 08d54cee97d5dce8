"""A model session over token ids and its KV cache."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from runtimes.machine import usable_cores
from slm.errors import SlmxError
from slm.presets import GPTConfig

FloatArray = npt.NDArray[np.float32]
IdArray = npt.NDArray[np.int64]
# A graph says by this key in its metadata that present is past and more, not the same buffer.
CACHE_GROWS = "slmx.cache_grows"
# Below this many weights a step is shorter than waking a second thread pays for (docs/figures.json).
ONE_THREAD_PARAMETERS = 3_000_000
MAX_THREADS = 256


def default_threads(config: GPTConfig) -> int:
    """Threads for one step: one for the smallest models, else the cores this process may use, at most four."""
    return 1 if config.parameters < ONE_THREAD_PARAMETERS else min(4, usable_cores())


def open_onnx(path: Path, threads: int) -> ort.InferenceSession:
    """An onnxruntime CPU session; SlmxError if the file is no model that it can run."""
    if not 1 <= threads <= MAX_THREADS:
        raise SlmxError(f"threads must be 1 to {MAX_THREADS}, not {threads}")
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
    """Past and present bound to the same buffers [rows, heads, block_size, head_dim].

    GroupQueryAttention writes each new position where it belongs, so that nothing is copied. One mask as long as
    the buffer is bound once; its ones say how many positions of each row are filled.
    """

    def __init__(self, session: ort.InferenceSession, config: GPTConfig, rows: int = 1) -> None:
        self._session, self._config = session, config
        self._past, self._present = cache_names(config.n_layer)
        shape = (rows, config.n_head, config.block_size, config.head_dim)
        self._values = [ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32)) for _ in self._past]
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
            value.update_inplace(np.concatenate([cache._values[number].numpy() for cache in caches]))
        return whole

    def select(self, rows: Sequence[int]) -> SharedCache:
        """A copy of some rows."""
        part = SharedCache(self._session, self._config, len(rows))
        part._mask[:] = self._mask[rows]
        for ours, theirs in zip(part._values, self._values, strict=True):
            ours.update_inplace(np.ascontiguousarray(theirs.numpy()[rows]))
        return part

    def copy(self) -> SharedCache:
        """The same positions in buffers of their own."""
        return self.select(range(len(self._mask)))

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

    def copy(self) -> GrowingCache:
        """The same positions; no step changes a past, so it may be shared."""
        twin = copy.copy(self)
        twin._values = list(self._values)
        return twin

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
    """One sequence in progress: ids go in, logits float32 [vocab] come out, `ids` are cached.

    The cache may be rewound: what lies behind its length is not read.
    """

    def __init__(self, model: Path, config: GPTConfig, threads: int | None = None) -> None:
        self.config = config
        self.threads = default_threads(config) if threads is None else threads
        self.ids: list[int] = []
        session = open_onnx(model, self.threads)
        grows = CACHE_GROWS in session.get_modelmeta().custom_metadata_map
        self._cache = GrowingCache(session, config) if grows else SharedCache(session, config)

    @property
    def length(self) -> int:
        """Number of positions in the cache."""
        return len(self.ids)

    def prefill(self, ids: Sequence[int] | IdArray) -> FloatArray:
        """Append ids in one run; the logits of each, float32 [n, vocab]. SlmxError past the context window."""
        length = len(self.ids)
        end = length + len(ids)
        if not length < end <= self.config.block_size:
            raise SlmxError(f"{end} tokens do not fit the context of {self.config.block_size}; shorten the prompt")
        row = np.array(ids, np.int64)
        logits = self._cache.append(row, length)
        self.ids += row.tolist()
        return logits

    def step(self, token: int) -> FloatArray:
        """Append one id; its logits float32 [vocab], valid until the next step."""
        length = len(self.ids)
        if length >= self.config.block_size:
            raise SlmxError(f"the context of {self.config.block_size} tokens is full")
        logits = self._cache.step(token, length)
        self.ids.append(token)
        row: FloatArray = logits[0]
        return row

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` positions."""
        if not 0 <= length <= len(self.ids):
            raise SlmxError(f"cannot rewind to {length}: {len(self.ids)} positions are cached")
        self._cache.rewind(length)
        del self.ids[length:]

    def read(self, ids: Sequence[int]) -> FloatArray:
        """Make these ids the sequence, running only those behind what it begins with; logits [vocab] of the last.

        SlmxError for no ids, or more than the context holds.
        """
        shared = next((i for i, (ours, theirs) in enumerate(zip(self.ids, ids, strict=False)) if ours != theirs), None)
        same = min(len(self.ids), len(ids)) if shared is None else shared
        self.rewind(min(same, max(0, len(ids) - 1)))
        last: FloatArray = self.prefill(ids[len(self.ids) :])[-1]
        return last

    def fork(self) -> Session:
        """A second sequence that begins as this one and goes its own way, in a cache of its own."""
        twin = copy.copy(self)
        twin.ids, twin._cache = list(self.ids), self._cache.copy()
        return twin


class Batch:
    """Several sequences that take their steps together, each a copy of a session as it was; `lengths` counts ids.

    In float a row's logits are those it would have alone, to the last digits; dynamic int8 rounds activations by what
    shares the tensor, so there rows disturb each other a little. SlmxError for a graph whose cache grows by copies.
    """

    def __init__(self, sequences: Sequence[Session]) -> None:
        caches = [sequence._cache for sequence in sequences if isinstance(sequence._cache, SharedCache)]
        if len(caches) < len(sequences):
            raise SlmxError("this variant writes one story at a time; take fp32 or int8 for several")
        self._block_size = sequences[0].config.block_size
        self._cache = SharedCache.stack(caches)
        self.lengths = [sequence.length for sequence in sequences]

    def step(self, tokens: Sequence[int]) -> FloatArray:
        """Append one id to each row; the logits [rows, vocab], valid until the next step. SlmxError if one is full."""
        if max(self.lengths) >= self._block_size:
            raise SlmxError(f"the context of {self._block_size} tokens is full")
        logits = self._cache.step_rows(tokens, self.lengths)
        self.lengths = [length + 1 for length in self.lengths]
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Let the other rows leave."""
        self._cache = self._cache.select(rows)
        self.lengths = [self.lengths[row] for row in rows]
