"""Reports in every format: the verdict, the tables, the charts, the page, and the folder of all files."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.report.charts import CHARTS, svg
from benchmarks.report.fields import FIELDS, full_table, machine_table, main_table, short_table, three_figures
from benchmarks.report.html import to_html
from benchmarks.report.leaderboard import Setting, float_ratio, main_results, main_setting, verdict
from benchmarks.report.printers import print_report, to_csv, to_jsonl, to_markdown
from benchmarks.report.reader import read_report
from benchmarks.report.record import FAILED, Case, Report, Result
from benchmarks.report.write import write_reports
from benchmarks.report.write_docs import write_docs
from slm.errors import SlmxError
from tests.report_samples import NEW_TOKENS, large_report, report, result, strange_report

HOSTILE = '<script>alert("a|b")</script>'
BARE = Result(Case("nano", "int8", 1, 4, 0, NEW_TOKENS), decode_seconds=[1.0, 1.1])
FILES = ["depth.png", "files.json", "latency.png", "memory.png", "quality.png"]
FILES += ["report.csv", "report.html", "report.json", "report.jsonl", "report.md", "threads.png"]


@pytest.fixture(scope="module")
def large() -> Report:
    """Two presets, five runners."""
    return large_report()


def test_a_peer_that_is_ahead_comes_first_with_what_it_loses() -> None:
    runners = ("int8", "fp32", "llama.cpp Q4_0", "torch eager")
    (sentence,) = verdict(report([result(runner) for runner in runners]))
    assert sentence == (
        "On nano, llama.cpp Q4_0 is 1.10x faster than int8, 1.10x quicker to the first token than int8, "
        "1.25x smaller in memory than int8, 1.54x smaller on disk than int8. "
        "Increase of the bits per byte: llama.cpp Q4_0 +4.10%, int8 +0.18%."
    )


NO_BETTER = "peer beats the best of our variants in speed, time to first token, memory or disk space."
PEER, SLOW_PEER = "llama.cpp Q4_0", "OpenVINO fp32"


def slow_peer(preset: str = "nano", depth: int = 0) -> Result:
    """A peer that is worse than int8 in everything."""
    worse = result("torch eager", preset, depth=depth)
    return replace(worse, case=replace(worse.case, runner=SLOW_PEER))


@pytest.mark.parametrize(
    ("results", "sentence"),
    [
        ([], "No other runtime was measured beside our variants."),
        ([result("int8")], "No other runtime was measured beside our variants."),
        ([slow_peer()], "No other runtime was measured beside our variants."),
        ([result("int8"), result("torch eager")], "No other runtime was measured beside our variants."),
        ([result("int8"), replace(slow_peer(), status=FAILED)], "No other runtime was measured beside our variants."),
        (
            [result("int8"), slow_peer(depth=64)],
            "No other runtime was measured under the same setting as our variants.",
        ),
        ([result("int8"), slow_peer("micro")], "No other runtime was measured under the same setting as our variants."),
        ([result("int8"), slow_peer()], f"No {NO_BETTER}"),
        ([result("int8"), result("int8", "micro"), slow_peer()], f"On nano, no {NO_BETTER}"),
        ([result("int8"), result("int8", "micro"), slow_peer(), slow_peer("micro")], f"No {NO_BETTER}"),
    ],
    ids=[
        "nothing",
        "only ours",
        "only a peer",
        "only PyTorch",
        "a failed peer",
        "another depth",
        "another model",
        "one peer",
        "one of two models",
        "both models",
    ],
)
def test_where_no_peer_is_better_it_is_written_what_was_compared(results: list[Result], sentence: str) -> None:
    assert verdict(report(results)) == [sentence]


def test_pytorch_may_be_better_where_no_peer_was_measured() -> None:
    fast = [result("int8"), result("torch eager", speed=10_000)]
    lead = "On nano, torch eager is 2.00x faster than int8, 2.00x quicker to the first token than int8."
    increase = " Increase of the bits per byte: torch eager +0.00%, int8 +0.18%."
    assert verdict(report(fast)) == [lead + increase, "No other runtime was measured beside our variants."]
    assert verdict(report([*fast, slow_peer()])) == [lead + increase, f"No {NO_BETTER}"]
    assert verdict(report([*fast, slow_peer(depth=64)]))[1].startswith(
        "No other runtime was measured under the same setting"
    )


def test_a_lead_in_some_settings_is_counted_and_one_in_the_noise_is_named() -> None:
    peer = "llama.cpp Q8_0"
    smaller = [replace(result("int8", depth=depth), peak_bytes=1, disk_bytes=1) for depth in (0, 64)]
    (sentence,) = verdict(report([*smaller, result(peer, speed=5050), result(peer, depth=64, speed=100)]))
    assert "up to 1.01x faster than int8, which is within the noise (in 1 of 2 settings)" in sentence


def test_a_failed_case_counts_for_nothing_whatever_it_left() -> None:
    wrong = replace(result("llama.cpp Q4_0"), status=FAILED, note="other tokens")
    run = report([result("int8"), result("torch eager"), wrong, slow_peer()])
    assert list(main_results(run, "nano")) == ["int8", "torch eager", SLOW_PEER]
    assert verdict(run)[0].startswith("No peer beats")
    assert "llama.cpp" not in "".join(svg(chart, run, "light") for chart in CHARTS if chart.presets(run))
    assert [row[1] for row in full_table(run).rows] == ["int8", "torch eager", SLOW_PEER]


def test_the_setting_that_most_runners_share_is_the_main_one() -> None:
    alone = [result("int8", depth=64), result("fp32", depth=64), result("int8"), result("torch eager", depth=64)]
    assert main_setting(report(alone), "nano") == Setting(1, 64, 4)
    assert main_setting(report([*alone, result("fp32"), result("torch eager")]), "nano") == Setting(1, 0, 4)
    assert main_setting(report([]), "nano") is None


def test_every_runner_is_at_its_best_number_of_threads(large: Report) -> None:
    found = main_results(large, "nano")
    assert list(found) == ["llama.cpp Q4_0", "int8", "fp32", "llama.cpp Q8_0", "torch eager"]
    assert {one.case.threads for one in found.values()} == {2}
    slow = [result("int8", threads=1, speed=900), result("int8", threads=2, speed=800)]
    assert main_results(report(slow), "nano")["int8"].case.threads == 1


def test_the_ratio_is_to_the_float_model_at_its_best_number_of_threads() -> None:
    ours, one, two = result("int8"), result("torch eager", speed=300), result("torch eager", threads=2, speed=500)
    run = report([ours, one, two])
    assert float_ratio(run, ours) == pytest.approx(5000 / 500)
    assert float_ratio(run, one) == pytest.approx(0.6)
    assert float_ratio(report([ours, replace(two, case=replace(two.case, depth=64))]), ours) is None


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


def test_columns_without_a_value_and_failed_cases_are_not_in_the_tables() -> None:
    table = full_table(report([BARE, replace(BARE, case=replace(BARE.case, threads=2), status=FAILED)]))
    assert table.headings == [
        "preset",
        "runner",
        "threads",
        "prompt, tokens",
        "depth, tokens",
        "batch",
        "decode, tokens/s",
        "spread, ±",
    ]
    assert [row[:6] for row in table.rows] == [["nano", "int8", "1", "4", "0", "1"]]


def test_the_deciding_row_has_speed_memory_size_and_loss() -> None:
    table = main_table(report([result("int8"), result("torch eager")]))
    assert "prompt 4, depth 0, batch 1" in table.caption
    row = dict(zip(table.headings, table.rows[0], strict=True))
    assert row.pop("spread, ±").endswith("%")
    assert row == {
        "preset": "nano",
        "runner": "int8",
        "threads": "1",
        "decode, tokens/s": "5,000",
        "times torch eager": "12.50x",
        "TTFT, ms": "0.400",
        "peak RSS, MiB": "75.0",
        "on disk, bytes": "2,097,152",
        "increase of bits per byte": "+0.18%",
    }


def test_settings_that_never_differ_are_left_out_of_the_short_table(large: Report) -> None:
    assert "depth, tokens" in short_table(large).headings
    assert "batch" not in short_table(large).headings
    assert len(short_table(large).rows) == len(large.results) - 2


def test_the_machine_is_told_with_bandwidth_and_models(large: Report) -> None:
    found = dict(machine_table(large).rows)
    assert found["cpu"] == "Test CPU"
    assert found["read bandwidth, 2 threads"] == "18.0 GB/s"
    assert found["model nano"] == "1,850,112 parameters, trained"
    assert found["model medium"] == "33,970,944 parameters, random weights"


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345.6, "12,346"), (99.96, "100"), (12.34, "12.3"), (9.996, "10.0"), (0.9996, "1.00"), (-0.1234, "-0.123")],
)
def test_numbers_have_three_figures(value: float, text: str) -> None:
    assert three_figures(value) == text


def test_markdown_answers_first_and_lists_what_failed(large: Report) -> None:
    text = to_markdown(large, [("Peak memory", "memory.png")])
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == [
        "Where another runtime is better",
        "Warnings",
        "Main figures",
        "Published figures",
        "Charts",
        "All cases",
        "Failed and skipped",
        "Machine",
    ]
    assert "![Peak memory](memory.png)" in text
    assert "| nano | int8 | 2 | 7,500 |" in text
    assert "| nano | candle | 1 | 4 | 0 | 1 | skipped | not installed; pip install candle |" in text
    assert "- nano: 3.20 ms per token is 312 tokens/s" in text


def test_markdown_escapes_names() -> None:
    text = to_markdown(strange_report(HOSTILE))
    assert "<script" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert any('&lt;script>alert("a\\|b")&lt;/script>' in row for row in rows)
    assert any("is not installed see its page |" in row for row in rows)


def test_a_report_of_nothing_prints_in_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    for empty in (report([]), report([BARE]), report([Result(BARE.case, FAILED, "killed")])):
        assert "## Machine" in to_markdown(empty)
        assert "<h2>Machine</h2>" in to_html(empty)
        assert "<svg" not in to_html(empty)
        print_report(empty)
        assert "No other runtime was measured" in capsys.readouterr().out


def test_the_terminal_shows_the_answer_the_deciding_table_and_what_failed(
    large: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    print_report(large)
    out = capsys.readouterr().out
    assert out.startswith("On nano, llama.cpp Q4_0 is up to 1.10x faster than int8,")
    assert "warning: the load average was 1.8 of 2 cores" in out
    assert re.search(r"nano +int8 +2 +7,500 +\d% +12\.50x +0\.267 +75\.0 +2,097,152 +\+0\.18%", out)
    assert re.search(r"nano +int4 +1 +4 +0 +1 +failed +its logits are not PyTorch's", out)


def test_no_control_character_reaches_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    fast = result("llama.cpp Q4_0")
    named = replace(fast, case=replace(fast.case, runner="a\x9b31mb"))
    wrong = Result(replace(fast.case, runner="c"), FAILED, "d\x1b[31me")
    print_report(report([result("int8"), named, wrong], ["f\x07g"]))
    out = capsys.readouterr().out
    assert {"\x9b", "\x1b", "\x07"}.isdisjoint(out)
    assert "On nano, a?31mb is" in out
    assert "d?[31me" in out
    assert "f?g" in out


def test_the_terminal_takes_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(strange_report("[bold]q[/bold]"))
    assert "warning: [bold]q[/bold] is old" in (out := capsys.readouterr().out)
    assert len(re.findall(r"nano +\[bold\]q\[/bold\]", out)) == 3


@pytest.mark.slow
def test_all_files_are_written_and_the_json_reads_back(large: Report, tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    write_reports(large, folder)
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert read_report(folder / "report.json") == large
    named = re.findall(r"!\[.*\]\((.*)\)", (folder / "report.md").read_text("utf-8"))
    assert sorted(named) == [name for name in FILES if name.endswith(".png")]
    assert [path.name for path in tmp_path.iterdir()] == ["reports"]


def test_a_folder_that_holds_something_is_kept_unless_told(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine", "utf-8")
    with pytest.raises(SlmxError, match="not empty"):
        write_reports(report([BARE]), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with pytest.raises(SlmxError, match="mine was not made by slmx"):
        write_reports(report([BARE]), tmp_path, replace=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    (tmp_path / "mine").unlink()
    write_reports(report([BARE]), tmp_path)
    write_reports(report([BARE]), tmp_path, replace=True)
    assert "report.json" in [path.name for path in tmp_path.iterdir()]


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "reports"
    write_reports(report([BARE]), folder)
    before = (folder / "report.json").read_bytes()

    def fail(run: Report) -> str:
        raise OSError("no page")

    monkeypatch.setattr("benchmarks.report.write.to_html", fail)
    with pytest.raises(OSError, match="no page"):
        write_reports(report([result("int8")]), folder, replace=True)
    assert (folder / "report.json").read_bytes() == before


def test_a_report_is_published_with_its_charts_and_every_sample(tmp_path: Path) -> None:
    whole = report([result("int8"), result("torch eager")])
    write_docs(whole, tmp_path)
    page = (tmp_path / "benchmarks.md").read_text("utf-8")
    pictures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", page)
    assert pictures
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    kept = read_report(tmp_path / "benchmarks.json")
    assert kept.results[0].decode_seconds == whole.results[0].decode_seconds
    assert kept.results[0].token_seconds == pytest.approx(whole.results[0].token_seconds, abs=1e-9)
