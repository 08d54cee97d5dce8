"""The quality of peers: which of them read the text, in which process, and what happens if one fails."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers import PeerKind
from benchmarks.run import peer_quality
from benchmarks.run.peer_quality import peer_nats, readers
from benchmarks.run.targets import Target, target_of_bundle
from runtimes.bundle.store import Bundle
from slm.console.errors import SlmxError
from tests.benchmarks.peers.kinds import peer

pytestmark = pytest.mark.slow

INPUTS = np.arange(12).reshape(3, 4)
# The real program, with a peer that knows nothing: each of 16 ids is equally likely after each other.
UNIFORM = """
import sys
import numpy as np
from benchmarks.peers import read_text
class Uniform:
    def read(self, ids):
        return np.zeros((len(ids), 16), np.float32)
class Kind:
    def open(self, folder, threads):
        return Uniform()
read_text.find_peer = lambda name: Kind()
print("a library says hello")
read_text.main()
"""


@pytest.fixture
def target(bundle: Path, tmp_path: Path) -> Target:
    found = target_of_bundle(Bundle.open(bundle), "nano", tmp_path / "work é 50%#", trusted=False)
    found.peer_folder(peer()).mkdir(parents=True)
    return found


def programmed(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(peer_quality, "READ_TEXT", (sys.executable, "-c", program))


def test_the_windows_reach_the_peer_and_its_nats_come_back(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    programmed(monkeypatch, UNIFORM)
    assert peer_nats(target, peer(), INPUTS, INPUTS + 1) == pytest.approx(12 * np.log(16))


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise SystemExit('no such\\x1b model')", r"no such\? model"),
        ("import os; os.kill(os.getpid(), 9)", "exit code -9"),
        ("print('nan')", "nan"),
        ("print('hello')", "hello"),
    ],
)
def test_a_peer_that_fails_is_a_warning_and_has_no_quality(
    target: Target, monkeypatch: pytest.MonkeyPatch, program: str, reason: str
) -> None:
    programmed(monkeypatch, program)
    with pytest.raises(SlmxError, match=f"^reading the text failed: {reason}$"):
        peer_nats(target, peer(), INPUTS, INPUTS)
    warnings: list[str] = []
    read = readers(target, [peer(reads=True)], warnings.append)["other"]
    assert read(INPUTS, INPUTS) is None
    assert [warning.partition(": reading")[0] for warning in warnings] == ["nano: the quality of other is unknown"]


def test_only_peers_that_can_read_and_have_weights_of_their_own_are_asked(target: Target) -> None:
    def names(*peers: PeerKind) -> list[str]:
        return list(readers(target, peers, print))

    assert names(peer(reads=True), peer(name="llama.cpp F32", reads=True), peer(name="silent")) == ["other"]
    assert names(peer(reads=True, modules=("nowhere",))) == []
