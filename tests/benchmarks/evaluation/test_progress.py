"""In a log, a long part of an evaluation says how far it is and how long the rest takes."""

from __future__ import annotations

import pytest

from benchmarks.evaluation import progress
from benchmarks.evaluation.progress import LINE_SECONDS, in_lines


def test_a_long_part_has_a_line_each_half_minute_and_none_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now, lines = [0.0], list[str]()
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    advance = in_lines("loss of nano", 100, lines.append)
    for step in range(100):
        now[0] = (step + 1) * LINE_SECONDS / 10
        advance(1)
    assert [line.split(",")[0] for line in lines] == [f"loss of nano: {share}%" for share in range(10, 100, 10)]
    assert lines[0] == "loss of nano: 10%, about 4 min left"
    assert lines[-1] == "loss of nano: 90%, about 30 s left"


def test_a_log_has_these_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with progress.Bars() as bars:
        advance = bars.begin("loss of nano", 4)
        advance(1)
        advance(3)
    part, quarter = capsys.readouterr().err.splitlines()
    assert part == "loss of nano"
    assert quarter.startswith("loss of nano: 25%, about ")


def test_a_short_part_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = list[str]()
    advance = in_lines("pairs", 3, lines.append)
    for _ in range(3):
        advance(1)
    assert lines == []
