"""The fuzzing notices what it is there to notice, and damages files in the same way each time."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from slm.console.errors import SlmxError
from tests.reliability import fuzz_worker, hostile
from tests.reliability.fuzz_worker import GROWTH, try_input
from tests.reliability.mutate import mutated
from tests.reliability.reader import Reader
from tests.reliability.readers import READERS

SEEDS = [b'{"a": [1, 2.5, "x"], "b": {"c": null}}', b'{"a": 1}\n{"a": 2}\n{"b": "y"}\n']


def test_the_same_number_is_the_same_damage() -> None:
    first = [mutated(SEEDS, True, "a", number) for number in range(300)]
    assert first == [mutated(SEEDS, True, "a", number) for number in range(300)]
    assert len(set(first)) > 200
    assert len({len(content) > 10_000 for content in first}) == 2


def two_lines(content: bytes) -> None:
    raise SlmxError("a\nb")


def another_error(content: bytes) -> None:
    raise KeyError("a")


def much_memory(content: bytes) -> None:
    assert len(b"x" * (4 * GROWTH)) > len(content)  # other memory of this process can become free meanwhile


def one_line(content: bytes) -> None:
    raise SlmxError("a; do b")


@pytest.mark.parametrize(
    ("read", "what"),
    [
        (two_lines, "a message that is not one line"),
        (another_error, "KeyError instead of SlmxError"),
        (much_memory, "MiB for"),
        (one_line, None),
    ],
)
def test_a_fault_is_noticed_and_named(read: Callable[[bytes], object], what: str | None) -> None:
    fuzz_worker.reset_peak()
    fault = try_input(Reader(SEEDS, read), 7, b"a")
    assert fault is None if what is None else fault is not None and what in fault.what


def dies(content: bytes) -> None:
    if content == SEEDS[0]:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_is_a_fault_and_the_next_one_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(READERS, "dies", lambda home: Reader(SEEDS[:1], dies))
    monkeypatch.setattr(hostile, "MOST_DEATHS", 2)
    context = multiprocessing.get_context("fork")
    tried = hostile._try_reader(context, "dies", 30.0)
    assert list(tried.faults) == ["the process died of SIGKILL"]
    assert tried.like == {"the process died of SIGKILL": 2}


def fails_at_damage(content: bytes) -> None:
    if content not in SEEDS:
        raise KeyError("a")


def test_parts_of_many_inputs_are_added_up_and_a_stopped_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(READERS, "fails", lambda home: Reader(SEEDS, fails_at_damage))
    monkeypatch.setattr(hostile, "_context", lambda: multiprocessing.get_context("fork"))
    monkeypatch.setattr(hostile, "PART", 20)
    monkeypatch.setattr(hostile, "TEN_MILLION", 60)
    monkeypatch.setattr(hostile, "KEPT", tmp_path)
    lines: list[str] = []
    (tmp_path / "fails-20.json").write_text('[20, ["of a run before"]]', "utf-8")
    outcome = hostile.try_ten_million("fails", False, lines.append)
    like = [sum(mutated(SEEDS, False, "fails", i) not in SEEDS for i in range(at, at + 20)) for at in (0, 40)]
    assert outcome.tried == 60
    assert [line.split(": Key")[0] for line in outcome.failures] == [
        f"fails ({like[0]} like it)",
        "of a run before",
        f"fails ({like[1]} like it)",
    ]
    assert len(lines) == 3
    assert not list(tmp_path.glob("*.json"))


def test_the_content_of_a_fault_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostile, "KEPT", tmp_path)
    fault = try_input(Reader(SEEDS, another_error), 7, b"odd")
    assert fault is not None
    line = hostile.line_of("a", fault, 3)
    assert line.endswith(f"again: python -m tests.reliability.hostile a {tmp_path / 'a-7'}")
    assert (tmp_path / "a-7").read_bytes() == b"odd"
