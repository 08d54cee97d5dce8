"""Other runtimes on the same weights. Each one is optional: if it is missing, its cases are skipped.

Two of them send usage data when they are loaded. `runtimes` switches this off for onnxruntime, and OpenVINO sends
nothing if it cannot import its telemetry package. Both are done here, before any peer is imported.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import runtimes  # noqa: F401
from benchmarks.report.record import Round

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def run_steps(read: Callable[[], list[int]], step: Callable[[list[int]], list[int]], new_tokens: int) -> Round:
    """Runs a runtime step by step.

    Args:
        read: Reads the prompt in every row and returns the most likely next id of each.
        step: Appends an id to each row and returns the most likely next id of each.
        new_tokens: The number of ids to write in each row.

    Returns:
        The ids and the times.
    """
    clock = time.perf_counter
    started = clock()
    steps = [read()]
    stamps = [clock()]
    for _ in range(new_tokens - 1):
        steps.append(step(steps[-1]))
        stamps.append(clock())
    return Round.from_stamps([list(row) for row in zip(*steps, strict=True)], started, stamps)


class Peer(Protocol):
    """A model opened in another runtime."""

    def greedy(self, prompt: list[int], new_tokens: int) -> Round:
        """Writes exactly `new_tokens` ids after a prompt, from an empty context, without stopping at the end token.

        `new_tokens` must be at least 1, and both together must fit the context. Otherwise the runtime raises its own
        error.
        """


class RowWriter(Peer, Protocol):
    """A peer that also writes after a history, and several rows together."""

    def greedy(self, prompt: list[int], new_tokens: int, history: Sequence[int] = (), rows: int = 1) -> Round:
        """Writes as `Peer.greedy` does, in `rows` rows with the same history and prompt.

        The history is in the context before the prompt, and reading it is not timed. All rows take their steps
        together.
        """


class Reader(Peer, Protocol):
    """A peer that also gives its logits, so that its quality can be measured."""

    def read(self, ids: list[int]) -> npt.NDArray[np.float32]:
        """Returns the logits float32 [ids, vocab] after each of the ids, from an empty context."""


@dataclass(frozen=True)
class PeerKind:
    """A runtime with a number format. It describes the files of the runtime and how to open them.

    Attributes:
        name: Its name in reports.
        modules: The modules that it needs to run.
        install: The command that installs `modules` and `writers`.
        prepare: Writes what the peer opens; its arguments are the folders of the checkpoint, of the bundle and of the
            peer.
        open: Loads the folder of the peer, with a number of threads.
        writers: Additional modules for `prepare`.
        weights: The files in its folder that hold the model.
        exact: Whether its weights are float32. Then its greedy ids are compared with PyTorch's.
        any_shape: Whether it reads every shape that slmx exports. If not, it reads plain GPT-2 and Llama shapes only.
        reads: Whether what `open` returns is a `Reader`.
        writes_rows: Whether what `open` returns is a `RowWriter`.
    """

    name: str
    modules: tuple[str, ...]
    install: str
    prepare: Callable[[Path, Path, Path], None]
    open: Callable[[Path, int], Peer]
    writers: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    exact: bool = False
    any_shape: bool = False
    reads: bool = False
    writes_rows: bool = False

    @property
    def missing(self) -> list[str]:
        """The modules that are not installed."""
        return [module for module in (*self.modules, *self.writers) if not _installed(module)]

    @property
    def versions(self) -> dict[str, str]:
        """The versions of the packages of its modules and writers, by name; empty if one is not installed."""
        if self.missing:
            return {}
        packages = _packages()
        tops = {module.split(".")[0] for module in (*self.modules, *self.writers)}
        return {name: version(name) for name in sorted({name for top in tops for name in packages.get(top, ())})}

    def weight_bytes(self, folder: Path) -> int:
        """Returns the bytes of the weights in the folder of the peer, without the tokenizer that a GGUF file holds."""
        return sum(_weight_bytes(folder / name) for name in self.weights)


def _weight_bytes(file: Path) -> int:
    if file.suffix != ".gguf":
        return file.stat().st_size
    from benchmarks.peers.gguf_file import tensor_bytes

    return tensor_bytes(file)


@cache
def _packages() -> Mapping[str, list[str]]:
    """Returns the packages of each module that is installed."""
    return packages_distributions()


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package of the module is missing
        return False
