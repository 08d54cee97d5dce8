"""The comparison of two reports: noise, regressions, and the command's exit code."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmarks.commands import compare
from benchmarks.report.compare import Change, compare_reports, share
from benchmarks.report.metrics import DECODE, FIRST_TOKEN, METRICS, Metric, noise
from benchmarks.report.record import FAILED, SKIPPED, Report
from runtimes.system.timing import Samples
from slm.console.errors import SlmxError
from tests.report_samples import MACHINE, report, result

SAMPLES = st.lists(st.floats(0.01, 1000), min_size=2, max_size=9).map(Samples)
CASE = result("int8").case


def steady(value: float) -> Samples:
    return Samples([value] * 5)


@given(old=SAMPLES, new=SAMPLES, limit=st.floats(0, 2), metric=st.sampled_from(METRICS))
def test_a_change_is_a_regression_in_one_direction_at_most(
    old: Samples, new: Samples, limit: float, metric: Metric
) -> None:
    forth, back = Change(CASE, metric, old, new), Change(CASE, metric, new, old)
    assert not (forth.regressed(limit) and back.regressed(limit))
    assert not Change(CASE, metric, old, old).regressed(0)
    if forth.regressed(limit):
        assert forth.regressed(limit / 2)
        assert (new.median < old.median) == metric.more_is_better
        assert old.median != new.median


@given(one=SAMPLES, other=SAMPLES, factor=st.sampled_from([0.25, 8.0, 1024.0]))
def test_noise_depends_on_neither_the_order_nor_the_unit(one: Samples, other: Samples, factor: float) -> None:
    scaled = Samples([value * factor for value in one.values])
    assert noise(one, other) == noise(other, one) == pytest.approx(noise(scaled, other))
    assert noise(one, other) >= max(0.02, noise(one, steady(1)), noise(other, steady(1))) * 0.999


def test_noise_is_twice_the_combined_spread() -> None:
    # Quartiles of 1, 2, 3, 4, 5 are 1.5 and 4.5: half their difference is half of the median.
    wide = Samples([1.0, 2.0, 3.0, 4.0, 5.0])
    assert noise(wide, steady(7)) == pytest.approx(1)
    assert noise(wide, wide) == pytest.approx(2**0.5)
    assert noise(steady(7), steady(9)) == 0.02


@pytest.mark.parametrize(
    ("old", "new", "regressed"),
    [(100, 99, False), (100, 97, False), (100, 91, False), (100, 89, True), (100, 130, False)],
)
def test_ten_percent_fewer_tokens_a_second_is_the_limit(old: float, new: float, regressed: bool) -> None:
    assert Change(CASE, DECODE, steady(old), steady(new)).regressed(0.1) is regressed
    assert Change(CASE, FIRST_TOKEN, steady(old), steady(2 * old - new)).regressed(0.1) is regressed


def test_two_percent_is_noise_even_of_steady_samples() -> None:
    assert not Change(CASE, DECODE, steady(1000), steady(981)).beyond_noise
    assert Change(CASE, DECODE, steady(1000), steady(979)).beyond_noise


def test_wide_samples_hide_a_difference_that_narrow_ones_show() -> None:
    wide = Samples([60.0, 80.0, 100.0, 120.0, 140.0])
    assert not Change(CASE, DECODE, wide, Samples([value * 0.7 for value in wide.values])).regressed(0.1)
    assert Change(CASE, DECODE, steady(100), steady(70)).regressed(0.1)


def test_common_cases_are_compared_by_four_criteria_and_their_quality() -> None:
    old = report([result("int8"), result("fp32")])
    new = report([result("int8", speed=4000), result("llama.cpp Q8_0")])
    found = compare_reports(old, new)
    assert [change.metric.title for change in found.changes] == ["decode", "first token", "peak memory", "disk"]
    assert [change.ratio for change in found.changes] == pytest.approx([0.8, 1.25, 1, 1])
    assert [change.rise for change in found.qualities] == [0]
    assert [case.runner for case in found.only_old] == ["fp32"]
    assert [case.runner for case in found.only_new] == ["llama.cpp Q8_0"]
    text = "\n".join(found.lines())
    assert "slower: nano int8, 1 thread, prompt 4, depth 0, batch 1, 65 new: decode 5,000 -> 4,000 tokens/s" in text
    assert "first token 0.400 -> 0.500 ms (1.25x, noise" in text
    assert "3 of 5 figures are within the noise" in text
    assert found.lines()[0] == "in both reports: 1 case: nano int8"
    assert found.lines()[-2:] == [
        "only in the old report: 1 case, which cannot be compared",
        "only in the new report: 1 case, which cannot be compared",
    ]
    assert len(found.regressions(0.1)) == 2
    assert found.regressions(0.3) == []


def test_what_got_better_is_no_regression() -> None:
    found = compare_reports(report([result("int8")]), report([result("int8", speed=9000)]))
    assert found.lines()[1].startswith("faster: nano int8")
    assert found.regressions(0) == []


def test_more_memory_is_a_regression_of_memory() -> None:
    old, new = result("int8"), replace(result("int8"), peak_bytes=2 * (result("int8").peak_bytes or 0))
    (line,) = compare_reports(report([old]), report([new])).regressions(0.1)
    assert line.startswith("larger: nano int8")
    assert "peak memory 75.0 -> 150 MiB (2.00x" in line


def test_a_worse_quality_is_a_regression_once_for_each_runner() -> None:
    old = [result("int8"), result("int8", threads=2), result("fp32")]
    worse = [replace(each, bits_per_byte=0.9, bpb_increase=0.12) for each in old[:2]]
    found = compare_reports(report(old), report([*worse, old[2]]))
    (line,) = found.regressions(0.1)
    assert line == "worse quality: nano int8: 0.8014 -> 0.9000 bits per byte (+12.3%)"
    assert found.regressions(0.13) == []
    assert line in found.lines()
    assert "better quality: nano int8: 0.9000 -> 0.8014 bits per byte (-11.0%)" in (
        compare_reports(report([*worse, old[2]]), report(old)).lines()
    )


def test_quality_on_another_text_is_not_compared() -> None:
    old, new = report([result("int8")]), report([replace(result("int8"), bits_per_byte=2.0)])
    other = compare_reports(old, replace(new, text="fables.txt, 4,096 tokens"))
    assert other.regressions(0) == []
    assert other.lines()[0] == (
        "warning: quality was measured on stories.txt, 4,096 tokens before, on fables.txt, 4,096 tokens now, "
        "and is not compared"
    )
    assert compare_reports(replace(old, text=None), new).qualities == []


def test_a_case_that_fails_now_is_a_regression_and_a_skipped_one_is_not() -> None:
    old = report([result("int8"), result("fp32")])
    broken = replace(result("int8"), status=FAILED, note="killed \x1b[31m\nhere", decode_seconds=[])
    (line,) = compare_reports(old, report([broken, result("fp32")])).regressions(0.1)
    assert line == "fails now: nano int8, 1 thread, prompt 4, depth 0, batch 1, 65 new: killed ?[31m here"
    assert compare_reports(old, report([broken, result("fp32")])).only_old == []
    skipped = replace(broken, status=SKIPPED)
    found = compare_reports(old, report([skipped, result("fp32")]))
    assert found.regressions(0.1) == []
    assert [case.runner for case in found.only_old] == ["int8"]


def test_another_machine_is_a_warning_for_each_difference() -> None:
    old = report([result("int8")])
    new = report([result("int8")], machine={**MACHINE, "cores": "4", "torch": "2.13.0", "commit": "b"})
    assert compare_reports(old, old).warnings == []
    assert compare_reports(old, new).lines()[:2] == [
        "warning: not the same cores: 2 before, 4 now",
        "warning: not the same torch: unknown before, 2.13.0 now",
    ]


def test_a_report_that_has_a_case_twice_is_refused() -> None:
    one, twice = report([result("int8")]), report([result("int8"), result("int8")])
    for pair, which in (((one, twice), "new"), ((twice, one), "old")):
        with pytest.raises(SlmxError) as error:
            compare_reports(*pair)
        case = "nano int8, 1 thread, prompt 4, depth 0, batch 1, 65 new"
        assert str(error.value) == f"the {which} report has a case twice ({case}); measure it again"


def test_reports_without_a_common_case_are_refused_with_what_each_has() -> None:
    one, two = report([result("int8")]), report([result("int8", threads=2)])
    with pytest.raises(SlmxError) as error:
        compare_reports(one, two)
    assert str(error.value) == (
        "the two reports measured no case in common (old: nano int8, 1 thread, prompt 4, depth 0, batch 1, 65 new; "
        "new: nano int8, 2 threads, prompt 4, depth 0, batch 1, 65 new); measure both with the same settings"
    )
    with pytest.raises(SlmxError, match=r"new: none\)"):
        compare_reports(one, report([]))


def test_what_both_reports_have_is_listed_and_the_rest_is_counted() -> None:
    common = [result(runner, preset) for preset in ("nano", "micro") for runner in ("int8", "fp32")]
    more = [result("fp32", "micro", threads=threads, depth=64) for threads in (1, 2)]
    peers = [replace(common[0], case=replace(common[0].case, runner=f"peer {number}")) for number in range(10)]
    found = compare_reports(report([*common, *more, result("fp32", "medium")]), report([*common, *peers]))
    lines = found.lines()
    assert lines[0] == "in both reports: 4 cases (nano 2, micro 2): nano int8, fp32; micro int8, fp32"
    assert lines[-2:] == [
        "only in the old report: 3 cases (micro 2, medium 1), which cannot be compared",
        "only in the new report: 10 cases, which cannot be compared",
    ]


@pytest.mark.parametrize(("text", "value"), [("10%", 0.1), ("2.5 %", 0.025), ("0%", 0), ("150%", 1.5)])
def test_percentages(text: str, value: float) -> None:
    assert share(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "10", "0.1", "-5%", "ten%", "%", "1e1%", "nan%", "٣%"])
def test_what_is_no_percentage_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(SlmxError) as error:
        share(text)
    assert str(error.value) == f"--fail-over {text!r}: not a percentage; write it like 10%"


def written(report_: Report, path: Path) -> Path:
    path.write_text(report_.to_json(), "utf-8")
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Reports of int8 at 5,000 and at 4,000 tokens a second."""
    old = written(report([result("int8")]), tmp_path / "old.json")
    return old, written(report([result("int8", speed=4000)]), tmp_path / "new.json")


def test_a_regression_past_the_limit_exits_with_1(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as stopped:
        compare(*files)
    assert stopped.value.exit_code == 1
    shown = capsys.readouterr()
    assert "regression over 10%: slower: nano int8" in shown.err
    assert "5,000 -> 4,000 tokens/s" in shown.out


def test_within_the_limit_or_faster_it_exits_well(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    compare(*files, fail_over="30%")
    assert "slower: nano int8" in capsys.readouterr().out
    compare(files[1], files[0])
    assert capsys.readouterr().err == ""


def test_it_is_a_command(files: tuple[Path, Path]) -> None:
    app = typer.Typer()
    app.command()(compare)
    runner, names = CliRunner(), [str(path) for path in files]
    assert runner.invoke(app, names).exit_code == 1
    assert runner.invoke(app, [*names, "--fail-over", "30%"]).exit_code == 0
    assert "--fail-over" in runner.invoke(app, ["--help"]).output


def test_a_wrong_percentage_and_another_version_are_one_line(files: tuple[Path, Path]) -> None:
    with pytest.raises(SlmxError, match="not a percentage"):
        compare(*files, fail_over="much")
    old = json.loads(files[0].read_text("utf-8"))
    files[0].write_text(json.dumps(old | {"format_version": 7}), "utf-8")
    with pytest.raises(SlmxError, match="report format 7, this slmx reads 1 to 2"):
        compare(*files)
