"""The tables of a report: their order, their marks, their settings, and what they leave out."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from benchmarks.peers.registry import PEERS
from benchmarks.report.families import PEER_FAMILIES, SAME_WEIGHTS, family_of, title_of
from benchmarks.report.fields import percent, three_figures
from benchmarks.report.headline import headlines
from benchmarks.report.leaderboard import Setting, float_ratio, main_results, main_setting, quality_increase
from benchmarks.report.record import FAILED, SKIPPED, Report, Result
from benchmarks.report.table import Table
from benchmarks.report.tables import (
    batch_table,
    case_table,
    choice_table,
    leads_table,
    machine_table,
    main_table,
    preset_table,
    prompt_table,
    trouble_table,
)
from tests.report_samples import large_report, report, result


@pytest.fixture(scope="module")
def large() -> Report:
    """Two presets, five runners."""
    return large_report()


def column(table: Table, heading: str) -> list[str]:
    place = table.columns.index(heading)
    return [row[place] for row in table.rows]


def bold(table: Table, heading: str) -> list[str]:
    """The runners whose figure is marked in a column."""
    place = table.columns.index(heading)
    return [row[0] for number, row in enumerate(table.rows) if (number, place) in table.best]


def same(runner: str, like: str = "int8", **changes: object) -> Result:
    one = replace(result(like), **changes)  # type: ignore[arg-type]
    return replace(one, case=replace(one.case, runner=runner))


def test_ours_come_first_the_recommended_one_on_top_and_all_are_marked() -> None:
    runners = ["torch eager", "llama.cpp Q4_0", "fp32", "int8", "llama.cpp Q8_0"]
    table = main_table(report([*(result(runner) for runner in runners), same("int4", "llama.cpp Q4_0")]))
    expected = ["slmx int8", "slmx int4", "slmx fp32", "llama.cpp Q4_0", "llama.cpp Q8_0", "PyTorch eager"]
    assert column(table, "runner") == expected


def test_one_model_has_all_its_main_figures() -> None:
    table = main_table(report([result("int8"), result("torch eager")]))
    assert "prompt 4, depth 0, batch 1" in table.note
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row.pop("±").endswith(" %")
    assert row == {
        "runner": "slmx int8",
        "threads": "1",
        "tokens/s": "5,000",
        "times PyTorch": "12.50x",
        "first token, ms": "0.400",
        "memory, MiB": "75.0",
        "on disk, MB": "2.10",
        "quality": "99.8 %",
    }


def test_several_models_have_their_speeds_side_by_side(large: Report) -> None:
    table = main_table(large)
    assert table.columns == [
        "runner",
        "nano, tokens/s",
        "medium, tokens/s",
        "nano: first token, ms",
        "nano: memory, MiB",
        "nano: on disk, MB",
        "nano: quality",
    ]
    assert table.rows[0] == ["slmx int8", "7,500", "625", "0.267", "75.0", "2.10", "99.8 %"]
    assert len(table.rows) == 5


def test_a_runner_that_one_model_lacks_has_an_empty_cell() -> None:
    table = main_table(report([result("int8"), result("int8", "micro"), result("fp32", "micro")]))
    assert column(table, "nano, tokens/s") == ["5,000", ""]


def test_the_speed_at_depth_stands_beside_the_short_one() -> None:
    deep = [result("int8", depth=192, speed=3000), result("fp32", depth=192, speed=100)]
    table = preset_table(report([result("int8"), result("fp32"), result("torch eager"), *deep]), "nano")
    place = table.columns.index("tokens/s when its context is three quarters full")
    assert table.columns[place - 2 : place] == ["tokens/s", "±"]
    assert [row[place] for row in table.rows] == ["3,000", "100", ""]


def changed(one: Result, **changes: object) -> Result:
    return replace(one, case=replace(one.case, **changes))  # type: ignore[arg-type]


def test_stories_written_together_are_compared_with_the_best_of_llama_cpp_in_the_same_setting() -> None:
    main = [result(runner) for runner in ("int8", "fp32", "llama.cpp Q8_0", "llama.cpp Q4_0", "torch eager")]
    rates = {"int8": 3000, "fp32": 1000, "llama.cpp Q8_0": 1500, "llama.cpp Q4_0": 1000}
    together = [changed(result(runner, speed=speed), batch=8) for runner, speed in rates.items()]
    other = [result("int8", "micro"), changed(result("int8", "micro", speed=500), batch=8)]
    table = batch_table(report([*main, *together, *other]))
    assert table.columns == [
        "runner",
        "nano, tokens/s",
        "nano, times llama.cpp's best",
        "micro, tokens/s",
    ]
    assert table.rows == [
        ["slmx int8", "24,000", "2.00x", "4,000"],
        ["slmx fp32", "8,000", "0.67x", ""],
        ["llama.cpp Q8_0", "12,000", "1.00x", ""],
        ["llama.cpp Q4_0", "8,000", "0.67x", ""],
    ]
    assert bold(table, "nano, tokens/s") == ["slmx int8"]
    assert "prompt 4, depth 0, batch 8" in table.note
    assert batch_table(report(main)).rows == []


def test_a_long_prompt_has_the_threads_that_read_it_best_and_not_those_that_write_best() -> None:
    main = [result("int8"), result("torch eager")]
    one, two = (
        changed(
            same("torch eager", first_token_seconds=[first] * 5, decode_seconds=[decode] * 5),
            prompt_tokens=200,
            threads=threads,
        )
        for threads, first, decode in ((1, 0.1, 0.5), (2, 0.05, 0.6))
    )
    ours = changed(same("int8", first_token_seconds=[0.02] * 5), prompt_tokens=200)
    table = prompt_table(report([*main, ours, one, two]))
    assert table.rows == [["slmx int8", "10,000", "2.50x"], ["PyTorch eager", "4,000", "1.00x"]]


def test_the_longest_prompt_is_compared_with_the_best_of_pytorch() -> None:
    main = [result("int8"), result("torch eager")]
    seconds = {("int8", 200): 0.02, ("torch eager", 200): 0.1, ("int8", 240): 0.03, ("torch eager", 240): 0.12}
    long = [
        changed(same(runner, first_token_seconds=[first] * 5), prompt_tokens=prompt)
        for (runner, prompt), first in seconds.items()
    ]
    table = prompt_table(report([*main, *long]))
    assert table.columns == ["runner", "nano, tokens/s", "nano, times PyTorch's best"]
    assert table.rows == [["slmx int8", "8,000", "4.00x"], ["PyTorch eager", "2,000", "1.00x"]]
    assert bold(table, "nano, tokens/s") == ["slmx int8"]
    assert "prompt 240, depth 0, batch 1" in table.note
    assert prompt_table(report(main)).rows == []


def test_variations_change_no_main_figure() -> None:
    runners = ("int8", "torch eager", "llama.cpp Q8_0")
    main = [result(runner) for runner in runners]
    varied = [
        changed(result(runner, speed=9000), **change)
        for runner in runners
        for change in ({"prompt_tokens": 200}, {"prompt_tokens": 240}, {"batch": 8})
    ]
    plain, whole = report(main), report([*main, *varied])
    assert main_setting(whole, "nano") == Setting(1, 0, 4)
    assert [one.text for one in headlines(whole)] == [one.text for one in headlines(plain)]
    assert main_table(whole) == main_table(plain)
    assert leads_table(whole) == leads_table(plain)


def test_the_best_of_a_column_is_marked_with_what_is_equal_within_the_noise() -> None:
    table = main_table(
        report(
            [
                same("int8", decode_seconds=[0.0128] * 5),
                same("int4", decode_seconds=[0.0129] * 5),
                same("fp32", decode_seconds=[0.0135] * 5),
                same("portable", decode_seconds=[0.008, 0.008, 0.0145, 0.03, 0.03]),
            ]
        )
    )
    assert bold(table, "tokens/s") == ["slmx int8", "slmx int4"]
    assert bold(main_table(report([same("int8")])), "tokens/s") == []
    assert bold(table, "runner") == []


def test_leads_of_others_are_listed_with_both_figures_and_qualities() -> None:
    table = leads_table(report([result("int8"), result("llama.cpp Q4_0"), result("llama.cpp Q8_0", speed=5001)]))
    assert ["nano", "llama.cpp Q4_0", "speed", "5,500 tokens/s", "5,000 tokens/s", "1.1x", "96.1 %", "99.8 %"] in (
        table.rows
    )
    assert ["nano", "llama.cpp Q8_0", "memory", "70.0 MiB", "75.0 MiB", "1.07x", "99.8 %", "99.8 %"] in table.rows
    assert not any(row[1:3] == ["llama.cpp Q8_0", "speed"] for row in table.rows)
    assert leads_table(report([result("int8"), result("torch eager")])).rows == []
    assert leads_table(report([result("torch eager")])).rows == []


def test_what_slmx_chooses_is_held_against_the_quickest_way_that_loses_little(large: Report) -> None:
    table = choice_table(large)
    assert table.rows == [
        ["nano", "int8, 1 thread", "5,000", "int8, 2 threads", "0.67x"],
        ["medium", "int8, 2 threads", "625", "int8, 2 threads", "1.00x"],
    ]
    assert "one thread below 15 MB" in table.note
    for cores in ("NaN", "9" * 5000):
        odd = choice_table(report([result("int8")], machine={"cores": cores}))
        assert odd.rows == [["nano", "int8, 1 thread", "5,000", "int8, 1 thread", "1.00x"]]
    assert choice_table(report([result("torch eager"), result("llama.cpp Q4_0")])).rows == []


def test_a_failed_case_counts_for_nothing_whatever_it_left() -> None:
    wrong = replace(result("llama.cpp Q4_0"), status=FAILED, note="other tokens")
    run = report([result("int8"), result("torch eager"), wrong])
    assert list(main_results(run, "nano")) == ["int8", "torch eager"]
    assert column(case_table(run, "nano"), "runner") == ["slmx int8", "PyTorch eager"]
    assert leads_table(run).rows == []


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


def test_the_ratio_is_to_the_fastest_pytorch_in_the_same_setting() -> None:
    ours, one, two = result("int8"), result("torch eager", speed=300), result("torch eager", threads=2, speed=500)
    run = report([ours, one, two])
    assert float_ratio(run, ours) == pytest.approx(5000 / 500)
    assert float_ratio(run, one) == pytest.approx(0.6)
    compiled = replace(two, case=replace(two.case, runner="torch compiled"), decode_seconds=[0.064] * 5)
    assert float_ratio(report([ours, one, two, compiled]), ours) == pytest.approx(5)
    assert float_ratio(report([ours, replace(two, case=replace(two.case, depth=64))]), ours) is None


def test_columns_without_a_value_and_failed_cases_are_not_in_the_tables() -> None:
    bare = Result(result("int8").case, decode_seconds=[1.0, 1.1])
    table = case_table(report([bare, replace(bare, case=replace(bare.case, threads=2), status=FAILED)]), "nano")
    assert table.columns == ["runner", "threads", "prompt", "depth", "batch", "tokens/s", "±"]
    assert [row[:5] for row in table.rows] == [["slmx int8", "1", "4", "0", "1"]]


def test_cases_with_one_reason_share_a_row() -> None:
    failed = replace(result("int8"), status=FAILED, note="killed")
    other = replace(failed, case=replace(failed.case, threads=2))
    run = report([failed, other, replace(other, note="crashed"), replace(failed, status=SKIPPED)])
    first = "1 thread, prompt 4, depth 0, batch 1; 2 threads, prompt 4, depth 0, batch 1"
    assert trouble_table(run, FAILED).rows == [
        ["nano", "slmx int8", first, "killed"],
        ["nano", "slmx int8", "2 threads, prompt 4, depth 0, batch 1", "crashed"],
    ]
    assert len(trouble_table(run, SKIPPED).rows) == 1


def test_the_machine_is_told_with_bandwidth_and_models(large: Report) -> None:
    found = {row[0]: row[1] for row in machine_table(large).rows}
    assert found["cpu"] == "Test CPU"
    assert found["read bandwidth, 2 threads"] == "18.0 GB/s"
    assert found["model nano"] == "1,850,112 parameters, trained, 0.7800 bits per byte"
    assert found["model medium"] == "33,970,944 parameters, random weights"


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345.6, "12,346"), (99.96, "100"), (12.34, "12.3"), (9.996, "10.0"), (0.9996, "1.00"), (-0.1234, "-0.123")],
)
def test_numbers_have_three_figures(value: float, text: str) -> None:
    assert three_figures(value) == text


@pytest.mark.parametrize(
    ("share", "text"), [(1, "100 %"), (0.99999, "100 %"), (0.9996, "99.96 %"), (0.9982, "99.8 %"), (0.5, "50.0 %")]
)
def test_a_share_that_is_not_the_whole_is_not_shown_as_the_whole(share: float, text: str) -> None:
    assert percent(share) == text


def unmeasured(runner: str) -> Result:
    return same(runner, bpb_increase=None, bits_per_byte=None)


def test_a_peer_with_the_weights_of_a_variant_has_its_quality() -> None:
    measured_here = [same("int8", bpb_increase=0.002), same("torch eager", bpb_increase=0.0)]
    peers = [unmeasured(name) for name in ("onnxruntime-genai int8", "llama.cpp F32", "llama.cpp Q8_0")]
    run = report([*measured_here, *peers])
    assert [quality_increase(run, peer) for peer in peers] == [0.002, 0.0, None]
    assert quality_increase(report(peers), peers[1]) is None
    measured = same("llama.cpp Q8_0", bpb_increase=0.0003)
    assert quality_increase(report([*measured_here, measured]), measured) == 0.0003


def test_the_registry_and_the_report_agree_on_weights_and_families() -> None:
    assert {name for name, kind in PEERS.items() if kind.exact} == {
        name for name, variant in SAME_WEIGHTS.items() if variant == "fp32"
    }
    assert SAME_WEIGHTS.keys() <= PEERS.keys()
    assert {family_of(name).name for name in PEERS} == {family.name for family in PEER_FAMILIES}
    assert not any(kind.reads for name, kind in PEERS.items() if re.search("optimum|genai|OpenVINO|Hugging", name))
    names = [title_of(name) for name in ("int8", "torch compiled", "llama.cpp F32", "x torch y")]
    assert names == ["slmx int8", "PyTorch compiled", "llama.cpp F32", "x torch y"]


@pytest.mark.parametrize(
    "text", ["as the bundle's manifest says: 64 stories sampled from the float model, seed 0", None]
)
def test_the_text_of_the_quality_is_named(text: str | None, large: Report) -> None:
    told = replace(large, text=text)
    for caption in (main_table(told).note, preset_table(told, "nano").note):
        assert "never saw" not in caption
        assert caption.endswith(f"Its text: {text}." if text else "10 %.")
