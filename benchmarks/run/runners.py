"""How each side is opened in its own process, and one round of it: the prompt, then greedy steps, each one timed.

The loop is the same for PyTorch, TorchScript, .pt2 and ONNX: `Session`. A peer brings its own. Nothing heavy is
imported before a side asks for it, so that a process holds what its side needs.
"""

from __future__ import annotations

import importlib
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtimes.engine.session import Session

TORCH_EAGER, TORCH_COMPILED = "torch eager", "torch compiled"
TORCH_SIDES = (TORCH_EAGER, TORCH_COMPILED)
ONNX_SUFFIXES = (".onnx", ".ort")


@dataclass(frozen=True)
class Job:
    """What a worker is to measure; paths are text, `history` are the ids in the context before `prompt`.

    `peer` says that `path` is the folder of a peer; else it is the variant's file, or the checkpoint for PyTorch.
    """

    side: str
    peer: bool
    path: str
    shape: dict[str, int]
    threads: int
    batch: int
    history: list[int]
    prompt: list[int]
    new_tokens: int


@dataclass(frozen=True)
class Round:
    """One round's ids, a list for each row, and its seconds: to the first ids, of all further steps, of each."""

    rows: list[list[int]]
    first_token_seconds: float
    decode_seconds: float
    token_seconds: list[float]


def import_side(job: Job) -> None:
    """Load the side's libraries, and give PyTorch its number of threads before anything runs."""
    if job.peer:
        from benchmarks.peers.registry import find_peer

        for module in find_peer(job.side).modules:
            importlib.import_module(module)
    elif Path(job.path).suffix in ONNX_SUFFIXES:
        importlib.import_module("runtimes.engine.cache")
    else:
        import torch

        torch.set_num_threads(job.threads)
        importlib.import_module("export.checks.torch_session")


def open_side(job: Job) -> Callable[[], Round]:
    """Load the model; what comes back runs one round, from an empty cache."""
    if job.peer:
        from benchmarks.peers.registry import find_peer

        peer = find_peer(job.side).open(Path(job.path), job.threads)

        def run_peer() -> Round:
            run = peer.greedy(job.prompt, job.new_tokens)
            return Round([run.ids], run.first_token_seconds, run.decode_seconds, run.token_seconds)

        return run_peer
    session = _open_session(job)
    if job.batch > 1:
        return lambda: run_batch(session, job.history, job.prompt, job.new_tokens, job.batch)
    return lambda: run_session(session, job.history, job.prompt, job.new_tokens)


def _open_session(job: Job) -> Session:
    path = Path(job.path)
    if job.side in TORCH_SIDES:
        from export.checks.torch_session import float_session
        from slm.checkpoint import load_checkpoint

        return float_session(load_checkpoint(path).model, job.threads, compiled=job.side == TORCH_COMPILED)
    from slm.presets import GPTConfig

    config = GPTConfig(**job.shape)
    if path.suffix in ONNX_SUFFIXES:
        from runtimes.engine.session import Session

        return Session.open(path, config, job.threads)
    from export.checks.torch_session import open_session

    return open_session(job.side, path, config, job.threads)


def run_session(session: Session, history: Sequence[int], prompt: Sequence[int], new_tokens: int) -> Round:
    """One sequence: `history` is read untimed, the prompt up to the first id is timed, and each step behind it."""
    session.reset()
    if history:
        session.prefill(history)
    step, clock = session.step, time.perf_counter
    started = clock()
    ids = [int(session.prefill(prompt).argmax())]
    stamps = [clock()]
    for _ in range(new_tokens - 1):
        ids.append(int(step(ids[-1]).argmax()))
        stamps.append(clock())
    return _round([ids], started, stamps)


def run_batch(session: Session, history: Sequence[int], prompt: Sequence[int], new_tokens: int, batch: int) -> Round:
    """Several rows: each reads the prompt for itself, then all take their steps together."""
    from runtimes.engine.pool import Pool

    pool = Pool(session, batch)
    for row in range(batch):
        pool.add(0, len(history) if row else 0)
        if history and not row:
            pool.prefill(0, history)
    clock = time.perf_counter
    started = clock()
    steps = [[int(pool.prefill(row, prompt).argmax()) for row in range(batch)]]
    stamps = [clock()]
    for _ in range(new_tokens - 1):
        steps.append(pool.step(steps[-1]).argmax(-1).tolist())
        stamps.append(clock())
    return _round([list(row) for row in zip(*steps, strict=True)], started, stamps)


def _round(rows: list[list[int]], started: float, stamps: list[float]) -> Round:
    tokens = [later - earlier for earlier, later in itertools.pairwise(stamps)]
    return Round(rows, stamps[0] - started, stamps[-1] - stamps[0], tokens)
