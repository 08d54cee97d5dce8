"""The slope of a series, and the record of what was tried."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.reliability.outcome import Check, Outcome
from tests.reliability.record import END, START, chosen_checks, keep
from tests.reliability.slope import slope_per_hour


def test_a_line_has_its_slope() -> None:
    seconds = [float(second) for second in range(100)]
    found = slope_per_hour(seconds, [3 * second / 3600 + 7 for second in seconds])
    assert (found.per_hour, found.low, found.high) == pytest.approx((3, 3, 3))


def test_the_interval_holds_the_true_slope_as_often_as_it_says() -> None:
    numbers = np.random.default_rng(0)
    seconds = [float(second) for second in range(200)]
    held = 0
    for _ in range(400):
        values = [5 * second / 3600 + noise for second, noise in zip(seconds, numbers.normal(0, 1, 200), strict=True)]
        found = slope_per_hour(seconds, values)
        held += found.low <= 5 <= found.high
    assert 0.85 <= held / 400 <= 0.98


def _check(promise: str, in_short_form: bool = True) -> Check:
    return Check(promise, lambda quick, log: Outcome(0, "files"), in_short_form=in_short_form)


CHECKS = {"a:x": _check("A"), "a:y": _check("A"), "a:slow": _check("A", in_short_form=False), "b": _check("B")}


def test_a_name_stands_for_its_parts_and_no_name_for_all() -> None:
    assert chosen_checks([], CHECKS, quick=False) == list(CHECKS)
    assert chosen_checks([], CHECKS, quick=True) == ["a:x", "a:y", "b"]
    assert chosen_checks(["b", "a"], CHECKS, quick=True) == ["b", "a:x", "a:y"]
    assert chosen_checks(["a:slow"], CHECKS, quick=True) == ["a:slow"]
    with pytest.raises(ValueError, match=r"no check 'a:z': choose from a:x, a:y, a:slow$"):
        chosen_checks(["a:z"], CHECKS, quick=True)
    with pytest.raises(ValueError, match=r"choose from a, b$"):
        chosen_checks(["c"], CHECKS, quick=True)


def test_the_table_has_the_sum_of_the_parts(tmp_path: Path) -> None:
    record, page = tmp_path / "record.json", tmp_path / "page.md"
    page.write_text(f"before\n{START}\n{END}\nafter\n")

    def ran(name: str, tried: int, quick: bool, day: str = "2026-01-02") -> str:
        row = {"tried": tried, "unit": "files", "failures": [], "quick": quick, "date": day}
        keep(name, row, record, page, CHECKS)
        *_, line, _, _ = page.read_text().splitlines()
        return line

    assert ran("a:x", 5, True) == "| A | 5 files | 0 | 2026-01-02 | `python -m tests.reliability a --quick` |"
    assert ran("a:y", 1000, False, "2026-01-01") == (
        "| A | 1,005 files | 0 | 2026-01-01 to 2026-01-02 "
        "| `python -m tests.reliability a` for 1 of 3 parts, `--quick` for 1 |"
    )
    assert "1,005 files" in ran("a:y", 9, True), "the short form replaces a full one"
    ran("a:x", 5, False)
    assert "`python -m tests.reliability a` for 2 of 3 parts |" in ran("a:y", 1000, False)
    assert "| 1,006 files | 0 | 2026-01-02 | `python -m tests.reliability a` |" in ran("a:slow", 1, False)
    assert list(json.loads(record.read_text())) == ["a:x", "a:y", "a:slow"]
    assert page.read_text().splitlines()[0] == "before"
