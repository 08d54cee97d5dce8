"""A peer that no test opens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks.peers import PeerKind


def peer(**changes: object) -> PeerKind:
    def prepare(checkpoint: Path, bundle: Path, folder: Path) -> None:
        raise AssertionError

    def open_peer(folder: Path, threads: int) -> None:
        raise AssertionError

    kind = PeerKind("other", ("json",), "pip install other", prepare, open_peer)  # type: ignore[arg-type]
    return replace(kind, **changes)  # type: ignore[arg-type]
