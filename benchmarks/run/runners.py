"""Opens a runner in its own process and runs rounds of it: the prompt, then greedy steps, each of them timed.

PyTorch, TorchScript, .pt2 and ONNX are sessions. They and the peers that run step by step share the timed loop
`run_steps`. Large packages are imported only if the runner needs them, so that the process loads nothing else.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from benchmarks.peers import run_steps
from benchmarks.report.record import TORCH_COMPILED, TORCH_RUNNERS, Round
from runtimes.bundle.variants import VARIANTS

if TYPE_CHECKING:
    from benchmarks.peers import RowWriter
    from runtimes.engine.session import Session


@dataclass(frozen=True)
class Job:
    """The measurement that a worker makes.

    Attributes:
        runner: The name of the runner.
        peer: Whether the runner is a peer.
        path: The folder of a peer, the file of a variant or the archive that holds it, or the checkpoint for PyTorch.
        trusted: Whether a TorchScript or .pt2 file at `path` may be read. Reading it can run code.
        shape: The fields of the model's `GPTConfig`.
        threads: The number of threads.
        batch: The number of rows.
        history: The ids in the context before the prompt.
        prompt: The ids of the prompt.
        new_tokens: The number of ids to write.
        packed: Whether `path` is the archive of a bundle.
    """

    runner: str
    peer: bool
    path: str
    trusted: bool
    shape: dict[str, int]
    threads: int
    batch: int
    history: list[int]
    prompt: list[int]
    new_tokens: int
    packed: bool = False

    @property
    def is_onnx(self) -> bool:
        """Whether onnxruntime runs it without a peer."""
        return not self.peer and self.runner in VARIANTS and not VARIANTS[self.runner].is_torch


@dataclass(frozen=True)
class Loaded:
    """A worker's answer to its job: the time of loading, and its peak memory before that. See `Result`."""

    load_seconds: float
    interpreter_bytes: int
    imports_bytes: int


@dataclass(frozen=True)
class Measured:
    """A worker's answer to "round": the round, and its peak memory so far."""

    round: Round
    peak_bytes: int


def import_runner(job: Job) -> None:
    """Imports the libraries of the runner, and sets PyTorch's number of threads before anything runs."""
    if job.peer:
        from benchmarks.peers.registry import find_peer

        for module in find_peer(job.runner).modules:
            importlib.import_module(module)
    elif job.is_onnx:
        importlib.import_module("runtimes.engine.cache")
    else:
        import torch

        torch.set_num_threads(job.threads)
        importlib.import_module("export.checks.torch_session")


def open_runner(job: Job) -> Callable[[], Round]:
    """Loads the model and returns a function that runs one round from an empty cache."""
    if job.peer:
        from benchmarks.peers.registry import find_peer

        kind = find_peer(job.runner)
        peer = kind.open(Path(job.path), job.threads)
        if kind.writes_rows:
            writer = cast("RowWriter", peer)
            return lambda: writer.greedy(job.prompt, job.new_tokens, job.history, job.batch)
        return lambda: peer.greedy(job.prompt, job.new_tokens)
    session = _open_session(job)
    if job.batch > 1:
        return lambda: run_batch(session, job.history, job.prompt, job.new_tokens, job.batch)
    return lambda: run_session(session, job.history, job.prompt, job.new_tokens)


def _open_session(job: Job) -> Session:
    path = Path(job.path)
    if job.runner in TORCH_RUNNERS:
        from export.checks.torch_session import float_session
        from slm.checkpoint import load_checkpoint

        return float_session(load_checkpoint(path).model, job.threads, compiled=job.runner == TORCH_COMPILED)
    from slm.presets import GPTConfig

    config = GPTConfig.from_dict(job.shape, "job")
    file: Path | bytes = path
    if job.packed:
        from runtimes.bundle.store import Bundle

        file = Bundle.open(path).model_file(job.runner)
    if job.is_onnx:
        from runtimes.engine.session import Session

        return Session.open(file, config, job.threads)
    from export.checks.torch_session import open_session

    return open_session(job.runner, file, config, job.threads, trusted=job.trusted)


def run_session(session: Session, history: Sequence[int], prompt: Sequence[int], new_tokens: int) -> Round:
    """Runs one row. The history is not timed. The prompt up to the first id and each later step are timed."""
    session.reset()
    if history:
        session.prefill(history)
    return run_steps(
        lambda: [int(session.prefill(prompt).argmax())],
        lambda ids: [int(session.step(ids[0]).argmax())],
        new_tokens,
    )


def run_batch(session: Session, history: Sequence[int], prompt: Sequence[int], new_tokens: int, batch: int) -> Round:
    """Runs several rows. Each row reads the prompt alone. Then all rows take their steps together."""
    from runtimes.engine.pool import Pool

    pool = Pool(session, batch)
    for row in range(batch):
        pool.add(0, len(history) if row else 0)
        if history and not row:
            pool.prefill(0, history)
    return run_steps(
        lambda: [int(pool.prefill(row, prompt).argmax()) for row in range(batch)],
        lambda ids: pool.step(ids).argmax(-1).tolist(),
        new_tokens,
    )
