"""Other runtimes on the same weights: each module is optional and found, or skipped by name with how to get it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Run:
    """One greedy continuation: its ids, seconds to the first of them, seconds of all further steps, and of each.

    `token_seconds` is empty for a runtime that hands out nothing before its end.
    """

    ids: list[int]
    first_token_seconds: float
    decode_seconds: float
    token_seconds: list[float]


class Peer(Protocol):
    """A model opened in another runtime."""

    def greedy(self, prompt: list[int], new_tokens: int) -> Run:
        """Write exactly `new_tokens` ids behind a prompt, from an empty context, without stopping at the end token."""


@dataclass(frozen=True)
class PeerKind:
    """A runtime and a number format: what files it needs and how it is opened.

    `modules` must be importable, `install` says how to get them. `prepare(checkpoint folder, bundle folder, folder)`
    writes what it opens into `folder`; `open(folder, threads)` loads it.
    """

    name: str
    modules: tuple[str, ...]
    install: str
    prepare: Callable[[Path, Path, Path], None]
    open: Callable[[Path, int], Peer]

    @property
    def missing(self) -> list[str]:
        """Modules that are not installed."""
        return [module for module in self.modules if find_spec(module) is None]
