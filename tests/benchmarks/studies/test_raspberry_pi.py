"""docs/raspberry-pi.md shows the figures of docs/raspberry-pi.json, and rows of owners are added to it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.pi.boards import BOARDS, CORES
from benchmarks.pi.machine import CPUS
from benchmarks.studies import raspberry_pi
from benchmarks.studies.raspberry_pi import COUNTED, RECIPES, add_rows, count_table, estimates, speed_table
from slm.console.errors import SlmxError

DOCS = Path(__file__).resolve().parents[3] / "docs"
REPORT, PAGE = DOCS / "raspberry-pi.json", DOCS / "raspberry-pi.md"
ROW = {
    "doctor": 1,
    "board": "Raspberry Pi 4 Model B Rev 1.4",
    "cpu": "Cortex-A72",
    "variants": {"int8": {"tokens_per_second": 1234.5, "spread": 0.02}},
}


@pytest.fixture
def report() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(REPORT.read_text("utf-8"))
    return found


def test_the_pages_have_the_tables_of_the_report(report: dict[str, Any]) -> None:
    text = PAGE.read_text("utf-8")
    assert count_table(report["results"]) in text
    assert speed_table(report["results"]) in text
    assert count_table(report["results"]) in (DOCS / "quantization.md").read_text("utf-8")


def test_every_processor_was_counted_with_the_same_variants(report: dict[str, Any]) -> None:
    results = report["results"]
    assert list(results["counted"]) == list(CPUS)
    for row in results["counted"].values():
        assert set(row) == set(results["bytes"]) >= {"fp32", "int8", *(f"int8 {recipe}" for recipe in RECIPES)}
        assert {name.split()[0] for name in row} <= set(COUNTED)
        assert all(0 < figures["token"] < figures["start"] for figures in row.values())


def test_the_estimates_follow_from_the_counts(report: dict[str, Any]) -> None:
    assert report["results"]["estimates"] == estimates(report["results"]["counted"], report["results"]["bytes"])
    assert report["settings"]["cores"] == {cpu: vars(core) for cpu, core in CORES.items()}
    assert report["settings"]["boards"] == [vars(board) for board in BOARDS]


def test_the_page_names_the_constants_of_the_formula() -> None:
    text = PAGE.read_text("utf-8")
    for cpu, core in CORES.items():
        assert f"| {cpu.title()} | {core.low:g} | {core.high} |" in text
    for board in BOARDS:
        name = board.name.removeprefix("Raspberry Pi ")
        assert f"| {name} | {board.hertz / 1e9:.1f} | {board.bandwidth / 1e9:.1f}e9 |" in text


def test_an_owners_row_is_added_and_marked_as_measured(tmp_path: Path) -> None:
    out, row = tmp_path / "report.json", tmp_path / "row.json"
    shutil.copyfile(REPORT, out)
    row.write_text(json.dumps(ROW), "utf-8")
    command = [sys.executable, "-m", "benchmarks.studies.raspberry_pi", "--add", str(row), "--out", str(out)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    last = ran.stdout.splitlines()[-1]
    assert last.startswith("| Raspberry Pi 4 Model B Rev 1.4 |")
    assert "| 1,234 +-2% |" in last
    assert last.endswith("| measured |")
    assert json.loads(out.read_text("utf-8"))["results"]["measured"] == [ROW]


def test_a_new_count_keeps_the_rows_of_owners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "report.json"
    record = json.loads(REPORT.read_text("utf-8"))
    record["results"]["measured"] = [ROW]
    out.write_text(json.dumps(record), "utf-8")
    new = {name: figures for name, figures in record["results"].items() if name != "measured"}
    monkeypatch.setattr(raspberry_pi, "measure", lambda cpus, cache: new)
    raspberry_pi.main(cache=tmp_path, out=out)
    assert json.loads(out.read_text("utf-8"))["results"]["measured"] == [ROW]


def test_another_file_is_refused_before_anything_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "other.json"
    out.write_text("{}", "utf-8")
    monkeypatch.setattr(raspberry_pi, "measure", lambda cpus, cache: pytest.fail("it counts"))
    with pytest.raises(SlmxError, match="not a file of this command"):
        raspberry_pi.main(cache=tmp_path, out=out)
    assert out.read_text("utf-8") == "{}"


@pytest.mark.parametrize(
    "content",
    [
        "no json",
        "[]",
        "{}",
        '{"doctor": 2, "variants": {"int8": {}}}',
        '{"doctor": 1}',
        json.dumps(ROW | {"variants": ["int8"]}),
        json.dumps(ROW | {"variants": {}}),
        json.dumps(ROW | {"variants": {"int8": {"tokens_per_second": "fast", "spread": 0}}}),
        json.dumps(ROW | {"board": 4}),
    ],
)
def test_a_file_that_is_no_row_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    row, out = tmp_path / "row.json", tmp_path / "report.json"
    row.write_text(content, "utf-8")
    shutil.copyfile(REPORT, out)
    with pytest.raises(SlmxError, match="not a row of slmx doctor --report"):
        add_rows(out, [row])
    assert out.read_bytes() == REPORT.read_bytes()
    with pytest.raises(SlmxError, match="not a file of this command"):
        add_rows(tmp_path / "none.json", [row])


def test_a_row_is_added_once(tmp_path: Path) -> None:
    row, out = tmp_path / "row.json", tmp_path / "report.json"
    row.write_text(json.dumps(ROW), "utf-8")
    shutil.copyfile(REPORT, out)
    with pytest.raises(SlmxError, match="has this row already"):
        add_rows(out, [row, row])
    assert out.read_bytes() == REPORT.read_bytes()
