"""Reports in every format: CSV, JSON lines, Markdown, the terminal, and the folder of all files."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.report import printers
from benchmarks.report.charts import CHARTS, Picture
from benchmarks.report.fields import FIELDS
from benchmarks.report.headline import headlines, opening
from benchmarks.report.html import to_html
from benchmarks.report.parts import folded_parts
from benchmarks.report.printers import print_report, to_csv, to_jsonl, to_markdown
from benchmarks.report.reader import read_report
from benchmarks.report.record import FAILED, Case, Report, Result
from benchmarks.report.tables import main_table
from benchmarks.report.terminal import divided
from benchmarks.report.warnings import STOPPED
from benchmarks.report.write import write_reports
from benchmarks.report.write_docs import write_docs
from slm.console.errors import SlmxError
from tests.report_samples import NEW_TOKENS, large_report, report, result, strange_report

HOSTILE = '<script>alert("a|b")</script>'
BARE = Result(Case("nano", "int8", 1, 4, 0, NEW_TOKENS), decode_seconds=[1.0, 1.1])
PICTURES = [f"{chart.name}-{theme}.svg" for chart in CHARTS for theme in ("light", "dark")]
FILES = sorted(["files.json", *(f"report.{kind}" for kind in ("csv", "html", "json", "jsonl", "md")), *PICTURES])


@pytest.fixture(scope="module")
def large() -> Report:
    """Two presets, five runners."""
    return large_report()


def test_csv_and_json_lines_hold_every_column_unrounded(large: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(large))))
    lines = [json.loads(line) for line in to_jsonl(large).splitlines()]
    assert len(rows) == len(lines) == len(large.results)
    assert list(rows[0]) == list(lines[0]) == [column.key for column in FIELDS]
    rows, lines = ([one for one in found if one["preset"] == "nano"] for found in (rows, lines))
    first = {key: lines[0][key] for key in ("preset", "runner", "threads", "prompt_tokens", "depth_tokens", "batch")}
    assert first == {
        "preset": "nano",
        "runner": "fp32",
        "threads": 1,
        "prompt_tokens": 4,
        "depth_tokens": 0,
        "batch": 1,
    }
    assert lines[0]["decode_tokens_per_s"] == pytest.approx(4000)
    assert lines[0]["ttft_ms"] == pytest.approx(0.5)
    assert lines[0]["prefill_tokens_per_s"] == pytest.approx(8000)
    assert lines[0]["times_float"] == pytest.approx(4000 / 600)
    assert (lines[0]["peak_rss_mib"], lines[0]["interpreter_mib"], lines[0]["libraries_mib"]) == (90, 10, 45)
    assert lines[0]["ceiling_share"] == pytest.approx(4000 * lines[0]["disk_bytes"] / 10e9)
    assert lines[0]["tpot_p50_ms"] < lines[0]["tpot_p95_ms"] < lines[0]["tpot_p99_ms"]
    assert [(row["status"], row["note"]) for row in rows[-2:]] == [
        ("failed", "its logits are not PyTorch's"),
        ("skipped", "not installed; pip install candle"),
    ]
    assert {key: float(rows[0][key]) for key in ("bpb_increase", "decode_tokens_per_s")} == {
        key: lines[0][key] for key in ("bpb_increase", "decode_tokens_per_s")
    }


def test_markdown_begins_with_the_sentence_and_folds_the_details(large: Report) -> None:
    pictures = {
        name: Picture(f"{name} is <fast>", "How to read", f"{name}-l.svg", f"{name}-d.svg")
        for name in ("speed", "depth")
    }
    text = to_markdown(large, pictures, "The models are old.")
    lines = text.splitlines()
    assert lines[2].replace("**", "") == opening(large)
    assert lines[4].replace("**", "") == f"- {headlines(large)[1].text}"
    assert "The models are old." in lines[:12]
    headings = ["All runners", "Charts", "depth is &lt;fast&gt;", "Details"]
    assert re.findall(r"^##+ (.*)$", text, re.MULTILINE) == headings
    first, charts = text.split("## All runners")
    assert '<source media="(prefers-color-scheme: dark)" srcset="speed-d.svg">' in first
    assert '<img alt="speed is &lt;fast&gt;" src="speed-l.svg">' in first
    assert "depth-l.svg" in charts
    assert "| slmx int8 | 7,500 | 625 |" in text
    assert "| llama.cpp Q4_0 | **8,250** | **688** |" in text
    titles = re.findall(r"^<details><summary>(.*)</summary>$", text, re.MULTILINE)
    assert titles == [part.title for part in folded_parts(large)]
    assert titles[-1] == "Published figures"
    before, *_ = text.split("<details>")
    assert "the load average was 1.8 of 2 cores" not in before
    skipped = "| nano | candle | 1 thread, prompt 4, depth 0, batch 1 | not installed; pip install candle |"
    assert skipped in text


def test_what_changes_the_conclusion_stands_with_the_sentence() -> None:
    text = to_markdown(report([result("int8")], [STOPPED, "another"]))
    assert text.index(f"> {STOPPED}") < text.index("## All runners") < text.index("- another")


def test_markdown_escapes_names() -> None:
    text = to_markdown(strange_report(HOSTILE))
    assert "<script" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert any('&lt;script&gt;alert("a\\|b")&lt;/script&gt;' in row for row in rows)
    assert any("is not installed see its page |" in row for row in rows)


@pytest.mark.parametrize(
    ("empty", "sentence"),
    [
        (report([]), "Nothing was measured."),
        (report([BARE]), "On this machine slmx int8 writes 61.1 tokens/s with nano."),
        (report([Result(BARE.case, FAILED, "killed")]), "Nothing was measured."),
        (report([result("torch eager")]), "No variant of slmx was measured."),
    ],
)
def test_a_report_of_little_prints_in_every_format(
    empty: Report, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence in to_markdown(empty).replace("**", "")
    assert sentence.split(" tokens/s")[0] in to_html(empty).replace("<strong>", "")
    print_report(empty)
    assert capsys.readouterr().out.startswith(sentence)


def test_the_terminal_shows_the_sentence_the_table_and_what_failed(
    large: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    print_report(large)
    out = capsys.readouterr().out
    assert out.splitlines()[:2] == [one.text for one in headlines(large)]
    assert re.search(r"slmx int8 +7,500 +625 +0\.267 +75\.0 +2\.10 +99\.8 %", out)
    assert re.search(r"nano +slmx int4 +1 thread, prompt 4, depth 0, batch 1 +its logits are not PyTorch's", out)
    assert "warning: nano: slmx int4 failed and cannot be compared" in out
    assert "1 case skipped" in out
    assert "note: the load average was 1.8 of 2 cores" in out
    assert "Bold" in main_table(large).note
    assert "Bold" not in out, "nothing is bold in a pipe"


def test_no_width_of_a_terminal_cuts_a_number_or_a_word_of_a_heading(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = report([result(runner, depth=depth) for runner in ("int8", "fp32", "torch eager") for depth in (0, 240)])
    table = main_table(one)
    assert len(table.columns) == 10
    for width in range(42, 141):
        monkeypatch.setattr(printers, "PIPE_WIDTH", width)
        print_report(one)
        (_, drawn, *_) = capsys.readouterr().out.split("\n\n")
        lines = drawn.splitlines()
        assert max(map(len, lines)) <= width
        groups = divided(table, width)
        firsts = [number for number, line in enumerate(lines) if line.startswith("slmx int8")]
        assert len(firsts) == len(groups)
        assert [column for group in groups for column in group[1:]] == list(range(1, 10))
        start = 0
        for group, first in zip(groups, firsts, strict=True):
            headings = " ".join(table.columns[column] for column in group)
            assert sorted(" ".join(lines[start:first]).split()) == sorted(headings.split())
            start = first + len(table.rows)
            for row, line in zip(table.rows, lines[first:start], strict=True):
                assert line.split() == " ".join(row[column] for column in group).split()
        assert start == len(lines)


def test_no_control_character_reaches_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    fast = result("llama.cpp Q4_0")
    named = replace(fast, case=replace(fast.case, runner="a\x9b31mb"))
    wrong = Result(replace(fast.case, runner="c"), FAILED, "d\x1b[31me")
    print_report(report([result("int8"), named, wrong], ["f\x07g"]))
    out = capsys.readouterr().out
    assert {"\x9b", "\x1b", "\x07"}.isdisjoint(out)
    assert "a?31mb is ahead in" in out
    assert "d?[31me" in out
    assert "f?g" in out


def test_the_terminal_takes_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(strange_report("[bold]q[/bold]"))
    assert "note: [bold]q[/bold] is old" in (out := capsys.readouterr().out)
    assert len(re.findall(r"^ ?\[bold\]q\[/bold\]|nano +\[bold\]q\[/bold\]", out, re.MULTILINE)) == 2


@pytest.mark.slow
def test_all_files_are_written_and_the_json_reads_back(large: Report, tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    write_reports(large, folder)
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert read_report(folder / "report.json") == large
    named = re.findall(r'(?:src|srcset)="([^"]*)"', (folder / "report.md").read_text("utf-8"))
    assert sorted(named) == sorted(PICTURES)
    assert [path.name for path in tmp_path.iterdir()] == ["reports"]


def test_a_folder_that_holds_something_else_is_kept_and_a_report_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine", "utf-8")
    with pytest.raises(SlmxError, match="it holds other files, such as mine, and"):
        write_reports(report([BARE]), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    (tmp_path / "mine").unlink()
    write_reports(report([BARE]), tmp_path)
    write_reports(report([BARE]), tmp_path)
    assert "report.json" in [path.name for path in tmp_path.iterdir()]


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "reports"
    write_reports(report([BARE]), folder)
    before = (folder / "report.json").read_bytes()

    def fail(run: Report) -> str:
        raise OSError("no page")

    monkeypatch.setattr("benchmarks.report.write.to_html", fail)
    with pytest.raises(OSError, match="no page"):
        write_reports(report([result("int8")]), folder)
    assert (folder / "report.json").read_bytes() == before


def test_a_report_is_published_with_its_charts_and_every_sample(tmp_path: Path) -> None:
    whole = report([result("int8"), result("torch eager")])
    write_docs(whole, tmp_path, "The models are old.")
    page = (tmp_path / "benchmarks.md").read_text("utf-8")
    pictures = re.findall(r'(?:src|srcset)="([^"]*)"', page)
    assert pictures
    assert all((tmp_path / name).is_file() for name in pictures)
    assert "\nThe models are old.\n" in page
    kept = read_report(tmp_path / "benchmarks.json")
    assert kept.results[0].decode_seconds == whole.results[0].decode_seconds
    assert kept.results[0].token_seconds == pytest.approx(whole.results[0].token_seconds, abs=1e-9)
