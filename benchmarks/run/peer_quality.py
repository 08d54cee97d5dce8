"""Reads a text with peers, each in its own process, to measure their quality."""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks.child import output_of, worker_environment
from benchmarks.peers import PeerKind
from benchmarks.quality.text_quality import ReadWindows
from benchmarks.report.families import SAME_WEIGHTS
from benchmarks.report.fields import printable
from benchmarks.report.record import Case
from benchmarks.run import cases
from benchmarks.run.targets import Target
from runtimes.engine.arrays import IdArray
from slm.console.errors import SlmxError
from slm.console.notice import Log

READ_TEXT = (sys.executable, "-m", "benchmarks.peers.read_text")


def readers(target: Target, peers: Iterable[PeerKind], log: Log) -> dict[str, ReadWindows]:
    """Returns how to read a text with each peer that can, and whose weights are not those of a variant.

    Args:
        target: The model.
        peers: The peers of the run.
        log: Called with a warning if a peer fails.
    """

    def reader(peer: PeerKind) -> ReadWindows:
        def read(inputs: IdArray, targets: IdArray) -> float | None:
            try:
                return peer_nats(target, peer, inputs, targets)
            except SlmxError as error:
                log(f"{target.name}: the quality of {peer.name} is unknown: {error}")
                return None

        return read

    def runs(peer: PeerKind) -> bool:
        return cases.skipped(Case(target.name, peer.name, 1, 1, 0, 2), peer, target.config) is None

    return {peer.name: reader(peer) for peer in peers if peer.reads and peer.name not in SAME_WEIGHTS and runs(peer)}


def peer_nats(target: Target, peer: PeerKind, inputs: IdArray, targets: IdArray) -> float:
    """Returns the total negative log-likelihood of the targets in nats.

    Args:
        target: The model.
        peer: A peer that reads.
        inputs: Windows of a text, int64 [windows, length].
        targets: The id after each input.

    Raises:
        SlmxError: The peer cannot be prepared or cannot read the text.
    """
    folder = target.peer_files(peer)
    with tempfile.TemporaryDirectory() as work:
        windows = Path(work) / "windows.npz"
        np.savez(windows, inputs=inputs, targets=targets)
        command = [*READ_TEXT, peer.name, str(folder.absolute()), str(windows)]
        told = output_of(command, "reading the text", env=worker_environment(OMP_NUM_THREADS="1"))
    last = told.strip().rpartition("\n")[2]
    try:
        nats = float(last)
    except ValueError:
        nats = math.nan
    if not math.isfinite(nats):
        raise SlmxError(f"reading the text failed: {printable(last)}")
    return nats
