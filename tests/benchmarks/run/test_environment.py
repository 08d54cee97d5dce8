"""The environment of a measurement: facts about the machine, and what other processes use of it."""

from __future__ import annotations

import pytest

from benchmarks.run.environment import environment, read_bandwidth
from tests.benchmarks.peers.kinds import peer


def test_the_environment_names_what_explains_a_figure() -> None:
    found = environment([peer(modules=("rich", "no_such_module")), peer(modules=("typer",))])
    assert {"cpu", "cores", "governor", "limits", "memory", "commit", "typer", "numpy"} <= set(found)
    assert "rich" not in found
    assert all(isinstance(value, str) and value for value in found.values())


def test_memory_is_read_at_some_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.run.environment.ARRAY_BYTES", 2**22)
    assert read_bandwidth(2) > 1e8
