"""The sentence that a report begins with: what it names, what it leaves out, and what stands beside it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.report.headline import caveats, headlines, opening, other_warnings
from benchmarks.report.leaderboard import Setting, at_best_threads, setting_of
from benchmarks.report.record import FAILED, SKIPPED, Model, Report, Result
from benchmarks.report.warnings import STOPPED, busy_before, busy_during, busy_share
from tests.report_samples import MIB, report, result

MAIN = Setting(1, 0, 4)


def renamed(one: Result, runner: str) -> Result:
    return replace(one, case=replace(one.case, runner=runner))


def steady(
    runner: str, speed: float, like: str = "int8", spread: float = 0.0, preset: str = "nano", depth: int = 0
) -> Result:
    """A result of a runner with this speed and spread. It is equal to int8 in all other figures."""
    one = result(like, preset, depth=depth)
    seconds = (one.case.new_tokens - 1) / speed
    rounds = [seconds * (1 + spread * number) for number in (-1, -1, 0, 1, 1)]
    first = [0.0004] * 5
    return renamed(replace(one, decode_seconds=rounds, first_token_seconds=first), runner)


OURS = steady("int8", 5000)


def sentence(*results: Result) -> str:
    return opening(report(results))


def test_the_whole_sentence() -> None:
    results = [
        OURS,
        steady("fp32", 4000, "fp32"),
        steady("torch eager", 500, "torch eager"),
        steady("torch compiled", 625, "torch eager"),
        steady("llama.cpp Q8_0", 2000, "llama.cpp Q8_0"),
        steady("llama.cpp Q4_0", 2500, "llama.cpp Q8_0"),
    ]
    assert sentence(*results) == (
        "On this machine slmx int8 writes 5,000 tokens/s with nano: 8.0x PyTorch's best, 2.0x llama.cpp's best, "
        "3.7x smaller than float32, at 99.8 % of its quality. llama.cpp is ahead in memory (1.07x)."
    )


def test_only_what_was_measured_is_named() -> None:
    assert sentence(OURS) == (
        "On this machine slmx int8 writes 5,000 tokens/s with nano, at 99.8 % of float32's quality."
    )
    assert sentence(replace(OURS, bpb_increase=None)) == "On this machine slmx int8 writes 5,000 tokens/s with nano."
    gone = [replace(steady("llama.cpp Q8_0", 1000), status=status) for status in (FAILED, SKIPPED)]
    assert "llama.cpp" not in sentence(OURS, *gone)
    assert sentence(steady("llama.cpp Q8_0", 9)) == "No variant of slmx was measured."
    assert sentence() == "Nothing was measured."


def test_a_runner_that_is_alone_goes_by_its_own_name() -> None:
    assert "2.5x llama.cpp Q8_0" in sentence(OURS, steady("llama.cpp Q8_0", 2000))
    assert "10x PyTorch," in sentence(OURS, steady("torch eager", 500))


def test_without_llama_cpp_the_fastest_peer_is_named() -> None:
    peers = [steady("OpenVINO fp32", 2000), steady("CTranslate2 int8", 2500)]
    assert "2.0x CTranslate2 int8" in sentence(OURS, *peers)
    assert "OpenVINO" not in sentence(OURS, *peers)
    assert "CTranslate2" not in sentence(OURS, *peers, steady("llama.cpp Q8_0", 1000))


@pytest.mark.parametrize(
    ("speed", "spread", "expected"),
    [
        (5000, 0.0, "llama.cpp is as fast"),
        (5050, 0.0, "llama.cpp is as fast"),
        (4950, 0.0, "llama.cpp is as fast"),
        (6000, 0.0, "llama.cpp is ahead in speed (1.2x)"),
        (5400, 0.2, "llama.cpp is as fast"),
        (6000, 0.2, "llama.cpp cannot be told apart from it, because the rounds differ too much"),
        (4000, 0.2, "llama.cpp cannot be told apart from it, because the rounds differ too much"),
        (4000, 0.0, "1.2x llama.cpp Q8_0"),
    ],
)
def test_a_lead_within_the_noise_is_no_lead(speed: float, spread: float, expected: str) -> None:
    found = sentence(OURS, steady("llama.cpp Q8_0", speed, spread=spread))
    assert expected in found
    assert found.count("llama.cpp") == 1


def test_a_noisy_runner_that_is_always_behind_is_behind() -> None:
    """The noise of its rounds, 4,900 to 6,250 tokens/s, is more than the distance of the medians."""
    assert "1.2x llama.cpp Q8_0" in sentence(steady("int8", 6600), steady("llama.cpp Q8_0", 5500, spread=0.12))


def test_noise_never_favours_ours_in_the_number_of_threads() -> None:
    def on_two(one: Result) -> Result:
        return replace(one, case=replace(one.case, threads=2))

    rows = [
        one
        for runner in ("int8", "llama.cpp Q8_0")
        for one in (steady(runner, 5000), on_two(steady(runner, 5500, spread=0.2)))
    ]
    best = at_best_threads(report(rows), "nano", setting_of(rows[0].case))
    assert {name: one.case.threads for name, one in best.items()} == {"int8": 1, "llama.cpp Q8_0": 2}


def test_each_metric_in_which_a_runtime_is_ahead_is_named_the_largest_lead_first() -> None:
    small = replace(steady("llama.cpp Q4_0", 1000), disk_bytes=(OURS.disk_bytes or 0) // 2)
    light = replace(steady("CTranslate2 int8", 1000), peak_bytes=25 * MIB, first_token_seconds=[0.0001] * 5)
    assert sentence(OURS, small, light).endswith(
        ". CTranslate2 is ahead in time to the first token (4.0x) and memory (3.0x), llama.cpp in size (2.0x)."
    )


def test_pytorch_may_be_ahead_too() -> None:
    assert "PyTorch is ahead in speed (2.0x)" in sentence(OURS, steady("torch eager", 10_000))


def test_the_recommended_variant_is_the_subject_even_if_another_is_faster() -> None:
    assert sentence(steady("int4", 9000), OURS).startswith("On this machine slmx int8 writes 5,000")
    assert sentence(steady("fp32", 9000, "fp32"), steady("portable", 9500, "fp32")) == (
        "On this machine slmx fp32 writes 9,000 tokens/s with nano."
    )


def test_each_further_model_has_a_shorter_sentence() -> None:
    results = [
        OURS,
        steady("torch eager", 500),
        steady("fp32", 100, "fp32", preset="micro"),
        replace(steady("int8", 300, preset="medium"), bpb_increase=None),
        steady("torch eager", 100, preset="medium"),
    ]
    assert [one.text for one in headlines(report(results))][1:] == [
        "micro, slmx fp32: 100 tokens/s.",
        "medium, random weights: 300 tokens/s: 3.0x PyTorch.",
    ]


@pytest.mark.parametrize(
    ("depth", "context", "words"),
    [
        (192, None, "(4,000 when its context is three quarters full)"),
        (128, None, "(4,000 when its context is half full)"),
        (60, None, "(4,000 when its context is a quarter full)"),
        (90, None, "(4,000 after 90 tokens)"),
        (192, 384, "(4,000 when its context is half full)"),
    ],
)
def test_the_figure_at_depth_stands_beside_the_short_one(depth: int, context: int | None, words: str) -> None:
    run = report([OURS, steady("fp32", 100), steady("int8", 4000, depth=depth), steady("int8", 4500, depth=8)])
    run = replace(run, models={"nano": Model(1_850_112, True, context_tokens=context)})
    assert f"5,000 tokens/s with nano {words}, at " in opening(run)


def test_a_batch_is_no_depth() -> None:
    many = replace(OURS, case=replace(OURS.case, batch=8, depth=192))
    assert "(" not in sentence(OURS, steady("fp32", 100), many)


def disturbed(*warnings: str) -> Report:
    """A report in which int8 is 1.25 times as fast as PyTorch, so that a fifth of the cores explains the lead."""
    return report([OURS, steady("torch eager", 4000)], warnings)


def test_a_stopped_run_is_told_beside_the_sentence() -> None:
    assert caveats(disturbed(STOPPED)) == [STOPPED]


@pytest.mark.parametrize(
    ("warning", "changes"),
    [
        (busy_before(0.19), False),
        (busy_before(0.2), True),
        (busy_during("nano", MAIN, [(1, 0.06), (3, 0.19)]), False),
        (busy_during("nano", MAIN, [(1, 0.06), (3, 0.2)]), True),
        (busy_during("nano", Setting(8, 0, 4), [(1, 0.9)]), False),
        (busy_during("micro", MAIN, [(1, 0.9)]), False),
        (f"nano, {MAIN}: memory is short, so the runners were measured in 2 parts", False),
    ],
)
def test_a_warning_is_large_if_other_processes_could_explain_the_lead(warning: str, changes: bool) -> None:
    run = disturbed(warning)
    assert (caveats(run), other_warnings(run)) == (([warning], []) if changes else ([], [warning]))


@pytest.mark.parametrize("others", [[], [steady("torch eager", 500)]])
def test_a_quarter_of_the_cores_changes_every_figure(others: list[Result]) -> None:
    warnings = [busy_during("nano", MAIN, [(1, share)]) for share in (0.24, 0.25)]
    assert caveats(report([OURS, *others], warnings)) == warnings[1:]
    assert caveats(report([], [busy_before(0.25)])) == [busy_before(0.25)]


def test_the_share_of_a_warning_comes_back() -> None:
    assert busy_share(busy_before(0.12)) == 0.12
    assert busy_share(busy_during("nano", MAIN, [(2, 0.07), (4, 0.31)])) == 0.31
    many = busy_during("nano", MAIN, [(number, 0.1) for number in (1, 2, 3, 5, 7, 8)])
    assert many.endswith("in rounds 1-3, 5, 7-8")
    assert busy_share("the load average was 1.8 of 2 cores") is None
    assert busy_share(f"other processes used {'9' * 5000}% of the cores") is None


def test_a_runner_that_failed_is_told_beside_the_sentence() -> None:
    failed = replace(steady("llama.cpp Q4_0", 1), status=FAILED, note="killed")
    other = replace(failed, case=replace(failed.case, threads=2))
    deep = replace(failed, case=replace(failed.case, runner="fp32", depth=64))
    run = report([OURS, failed, other, renamed(failed, "int4"), deep, replace(deep, status=SKIPPED)])
    assert caveats(run) == ["nano: llama.cpp Q4_0 and slmx int4 failed and cannot be compared"]
    one_works = report([OURS, replace(OURS, case=replace(OURS.case, threads=2), status=FAILED)])
    assert caveats(one_works) == []
    assert caveats(report([failed])) == ["nano: llama.cpp Q4_0 failed and cannot be compared"]
