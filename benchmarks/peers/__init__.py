"""Other runtimes on the same weights: each module is optional and found, or skipped by name with how to get it.

Two of them report to their makers as soon as they load. onnxruntime does not once `runtimes` is imported, and OpenVINO
does not when it cannot import its telemetry package; both are seen to here, before any peer is.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import runtimes  # noqa: F401

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Run:
    """One greedy continuation: its ids, seconds to the first of them, seconds of all further steps, and of each.

    `token_seconds` is empty for a runtime that hands out nothing before its end.
    """

    ids: list[int]
    first_token_seconds: float
    decode_seconds: float
    token_seconds: list[float]

    @classmethod
    def from_stamps(cls, ids: list[int], started: float, stamps: list[float]) -> Run:
        """A run from the clock's reading at its start and behind each id."""
        steps = [later - earlier for earlier, later in pairwise(stamps)]
        return cls(ids, stamps[0] - started, stamps[-1] - stamps[0], steps)


def run_steps(append: Callable[[list[int]], int], prompt: list[int], new_tokens: int) -> Run:
    """A run of a runtime driven step by step: `append` puts ids into its context and returns the likeliest next id."""
    clock = time.perf_counter
    ids: list[int] = []
    stamps: list[float] = []
    step = prompt
    started = clock()
    for _ in range(new_tokens):
        ids.append(append(step))
        step = ids[-1:]
        stamps.append(clock())
    return Run.from_stamps(ids, started, stamps)


class Peer(Protocol):
    """A model opened in another runtime."""

    def greedy(self, prompt: list[int], new_tokens: int) -> Run:
        """Write exactly `new_tokens` ids behind a prompt, from an empty context, without stopping at the end token.

        At least one, and with the prompt no more than the context holds; a runtime raises errors of its own else.
        """


@dataclass(frozen=True)
class PeerKind:
    """A runtime and a number format: what files it needs and how it is opened.

    `modules` must be importable to run it, `writers` to prepare it as well; `install` says how to get them.
    `prepare(checkpoint folder, bundle folder, folder)` writes what it opens into `folder`; `open(folder, threads)`
    loads it, in any process. `weights` are the files there that hold the model. `exact` says that weights and
    arithmetic are float32, so that it writes PyTorch's ids.
    """

    name: str
    modules: tuple[str, ...]
    install: str
    prepare: Callable[[Path, Path, Path], None]
    open: Callable[[Path, int], Peer]
    writers: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    exact: bool = False

    @property
    def missing(self) -> list[str]:
        """Modules that are not installed."""
        return [module for module in (*self.modules, *self.writers) if not _installed(module)]

    def files(self, folder: Path) -> list[Path]:
        """The files of the model that the runtime opens in a prepared folder."""
        return [folder / name for name in self.weights]


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it
        return False
