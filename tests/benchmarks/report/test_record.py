"""The record of a benchmark run: figures from samples, and impossible figures."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from benchmarks.report.record import Case, Result
from tests.report_samples import report

CASE = Case("nano", "int8", 1, prompt_tokens=8, depth=0, new_tokens=11, batch=2)


def test_rates_count_every_row_of_a_batch() -> None:
    measured = Result(CASE, decode_seconds=[2.0, 4.0, 5.0], first_token_seconds=[0.5, 1.0, 2.0])
    assert measured.decode is not None
    assert measured.decode.median == 10 * 2 / 4
    assert measured.prefill is not None
    assert measured.prefill.median == 8 * 2 / 1


def test_what_was_not_measured_has_no_rate() -> None:
    nothing = Result(CASE, token_seconds=[0.1])
    assert (nothing.decode, nothing.prefill, nothing.percentile(50)) == (None, None, None)


def test_percentiles_are_of_all_steps() -> None:
    measured = Result(CASE, token_seconds=[float(number) for number in range(1, 102)])
    assert [measured.percentile(share) for share in (50, 95, 99)] == pytest.approx([51, 96, 100])


def test_the_share_of_the_ceiling_counts_steps_not_rows() -> None:
    measured = Result(CASE, decode_seconds=[5.0], weight_bytes=1000)
    run = replace(report([measured]), bandwidth={"1": 8000.0})
    assert run.ceiling_share(measured) == pytest.approx((20 / 5 / 2) / 8)
    assert run.ceiling_share(replace(measured, case=replace(CASE, threads=2))) is None
    assert run.ceiling_share(replace(measured, weight_bytes=None)) is None
    assert run.ceiling_share(replace(measured, decode_seconds=[])) is None


@pytest.mark.parametrize(
    "wrong", [{"threads": 0}, {"prompt_tokens": 0}, {"depth": -1}, {"new_tokens": 1}, {"batch": 0}, {"batch": 2**32}]
)
def test_a_case_that_cannot_be_is_refused(wrong: dict[str, int]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"^{name} of a case is {value}$"):
        replace(CASE, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["first_token_seconds", "decode_seconds", "token_seconds"])
@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_a_sample_of_no_time_is_refused(name: str, seconds: float) -> None:
    with pytest.raises(ValueError, match="a sample is"):
        Result(CASE, **{name: [0.1, seconds]})  # type: ignore[arg-type]


@pytest.mark.parametrize("increase", [-1.0, -2.0, 1e10])
def test_a_quality_that_cannot_be_is_refused(increase: float) -> None:
    with pytest.raises(ValueError, match="bpb_increase is"):
        Result(CASE, bpb_increase=increase)
