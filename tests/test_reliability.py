"""The slope of a series, what counts as growth, and the record of what was tried."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.reliability import __main__ as command
from tests.reliability.disk import line_problem
from tests.reliability.forks import Ended
from tests.reliability.growth import Reading, check_growth
from tests.reliability.outcome import Check, Outcome
from tests.reliability.record import END, START, chosen_checks, keep
from tests.reliability.slope import slope_of


def test_a_line_has_its_slope() -> None:
    places = [float(place) for place in range(100)]
    found = slope_of(places, [3 * place + 7 for place in places])
    assert found == pytest.approx((3, 3, 3))


def test_the_interval_holds_the_true_slope_as_often_as_it_says() -> None:
    numbers = np.random.default_rng(0)
    places = [float(place) for place in range(200)]
    held = 0
    for _ in range(2000):
        values = [5 * place / 3600 + noise for place, noise in zip(places, numbers.normal(0, 1, 200), strict=True)]
        found = slope_of(places, values)
        held += found.low <= 5 / 3600 <= found.high
    assert held / 2000 == pytest.approx(0.95, abs=0.015)  # three standard errors


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("run/model: cannot write (Input/output error); check the disk, or use another folder", ""),
        (
            "run/model: onnxruntime's quantizer cannot read back the working file that it wrote: the disk is probably "
            "full; make room and export again",
            "",
        ),
        (
            "run/variants.json: cannot write (Read-only file system); set XDG_CONFIG_HOME to a folder",
            "",
        ),
        ("run/model: cannot be removed", "no advice"),
        ("run/model: another program wrote there; nothing was deleted", "no advice"),
        ("run/model: cannot write again; moved", "no advice"),
        ("elsewhere: cannot write; check the disk", "no file is named"),
    ],
)
def test_a_line_about_a_disk_names_a_file_and_gives_advice(line: str, problem: str, tmp_path: Path) -> None:
    after = tmp_path / "after"
    (after / "run").mkdir(parents=True)
    found = line_problem(Ended(1, f"slmx: {line}\n", [], 0.0), after)
    assert found.startswith(problem) if problem else not found


def test_a_check_that_tried_nothing_is_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = Check("A", lambda quick, log: Outcome(0, "files"))
    broken = Check("B", lambda quick, log: Outcome(0, "files", ["cannot be built"]))
    monkeypatch.setattr(command, "CHECKS", {"nothing": nothing, "broken": broken})
    monkeypatch.setattr(command, "DOCS", tmp_path)
    (tmp_path / "reliability.md").write_text(f"{START}\n{END}\n", "utf-8")
    monkeypatch.setattr("sys.argv", ["reliability", "nothing", "--write"])
    assert command.main() == 0
    assert capsys.readouterr().err == "nothing: skipped, nothing could be tried here\n"
    assert not (tmp_path / "reliability.json").exists()
    monkeypatch.setattr("sys.argv", ["reliability", "--write"])
    assert command.main() == 1
    assert list(json.loads((tmp_path / "reliability.json").read_text("utf-8"))) == ["broken"]


@pytest.mark.parametrize(
    ("bytes_per_story", "files", "failures"),
    [(0, 0, []), (30, 0, []), (100, 0, ["memory: +900,000"]), (0, 1, ["open files: +9"])],
)
def test_a_growth_after_the_caches_have_filled_is_a_failure(
    bytes_per_story: int, files: int, failures: list[str]
) -> None:
    outcome, lines = Outcome(10_000, "stories"), list[str]()
    readings = [
        Reading(story, 300_000_000 + min(story, 900) * 3000 + story * bytes_per_story, 9 + files * story // 1000, 3)
        for story in range(0, 10_001, 100)
    ]
    check_growth(outcome, readings, 1000, 0.5e6, "stories", lines.append)
    assert len(outcome.failures) == len(failures)
    assert all(map(str.startswith, outcome.failures, failures))
    assert lines[0].endswith("in 9,000 stories, after 1,000 stories")


def _check(promise: str, in_short_form: bool = True) -> Check:
    return Check(promise, lambda quick, log: Outcome(0, "files"), in_short_form=in_short_form)


CHECKS = {
    "a:x": _check("A"),
    "a:y": _check("A"),
    "a:slow": _check("A", in_short_form=False),
    "b": _check("B"),
    "long:z": _check("Z", in_short_form=False),
}


def test_a_name_stands_for_its_parts_and_no_name_for_all() -> None:
    assert chosen_checks([], CHECKS, quick=False) == list(CHECKS)
    assert chosen_checks([], CHECKS, quick=True) == ["a:x", "a:y", "b"]
    assert chosen_checks(["b", "a"], CHECKS, quick=True) == ["b", "a:x", "a:y"]
    assert chosen_checks(["a:slow"], CHECKS, quick=True) == ["a:slow"]
    assert chosen_checks(["long"], CHECKS, quick=False) == ["long:z"]
    with pytest.raises(ValueError, match=r"no check 'a:z': choose from a:x, a:y, a:slow$"):
        chosen_checks(["a:z"], CHECKS, quick=True)
    with pytest.raises(ValueError, match=r"choose from a, b, long$"):
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
