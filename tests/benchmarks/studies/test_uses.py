"""The tables of the study of uses."""

from __future__ import annotations

import pytest

from benchmarks.studies.uses import FORMS, USES, table, thread_counts, threads_table
from runtimes.engine.session import ONE_THREAD_BYTES, default_threads
from runtimes.system.timing import Samples

# Tokens per second on one thread and on two, in three rounds of a machine that becomes slower.
ROUNDS = {"1": [100.0, 100.0, 50.0], "2": [150.0, 75.0, 75.0]}
FOUND = {"nano": {use: {f"{name} {n}": Samples(ROUNDS[n]) for name in FORMS.values() for n in ROUNDS} for use in USES}}


@pytest.mark.parametrize("cores", [1, 2, 4, 8, 64])
def test_the_default_of_every_size_is_measured(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.studies.uses.usable_cores", lambda: cores)
    monkeypatch.setattr("runtimes.engine.session.usable_cores", lambda: cores)
    assert {1, cores, default_threads(ONE_THREAD_BYTES), default_threads(ONE_THREAD_BYTES - 1)} == {*thread_counts()}


def test_ratios_are_those_of_each_round() -> None:
    """The quotient of the medians would be 0.75."""
    ways = {"nano": {name: f"{name} {1 if name == 'int8' else 2}" for name in FORMS.values()}}
    lines = table("one story", FOUND, ways).splitlines()
    assert lines[2] == "| int8 | 100 ±25% |"
    assert lines[3].startswith("| q8 | 75 ±50% (1.50 ±")
    assert threads_table(FOUND, 2).splitlines()[2].startswith("| one story, int8 | 1.50 ±")
