"""The record of a benchmark run: figures from samples, JSON there and back, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.report.record import Case, Model, Report, Result
from slm.errors import SlmxError
from tests.report_samples import large_report, report, result

CASE = Case("nano", "int8", 1, prompt_tokens=8, depth=0, new_tokens=11, batch=2)
POSITIVE = st.floats(1e-9, 1e9)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
RESULTS = st.builds(
    Result,
    st.builds(Case, TEXT, TEXT, *[st.integers(1, 64)] * 5),
    st.sampled_from(["measured", "failed", "skipped"]),
    TEXT,
    st.none() | POSITIVE,
    st.lists(POSITIVE, max_size=3),
    st.lists(POSITIVE, max_size=3),
    st.lists(POSITIVE, max_size=3),
    st.none() | st.integers(0, 2**40),
)


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
    measured = Result(CASE, token_seconds=[float(number) for number in range(101)])
    assert [measured.percentile(share) for share in (50, 95, 99)] == pytest.approx([50, 95, 99])


def test_the_share_of_the_ceiling_counts_steps_not_rows() -> None:
    measured = Result(CASE, decode_seconds=[5.0], weight_bytes=1000)
    run = replace(report([measured]), bandwidth={"1": 8000.0})
    assert run.ceiling_share(measured) == pytest.approx((20 / 5 / 2) / 8)
    assert run.ceiling_share(replace(measured, case=replace(CASE, threads=2))) is None
    assert run.ceiling_share(replace(measured, weight_bytes=None)) is None
    assert run.ceiling_share(replace(measured, decode_seconds=[])) is None


def test_a_report_reads_back_equal(tmp_path: Path) -> None:
    path, written = tmp_path / "report.json", large_report()
    path.write_text(written.to_json(), "utf-8")
    assert Report.read(path) == written


@given(results=st.lists(RESULTS, max_size=3), warnings=st.lists(TEXT, max_size=2), name=TEXT)
def test_any_report_reads_back_equal(results: list[Result], warnings: list[str], name: str) -> None:
    written = replace(report(results, warnings), models={name: Model(3, False, bleu=1.5)})
    assert Report.from_dict(json.loads(written.to_json())) == written


def refused(tmp_path: Path, text: str) -> str:
    path = tmp_path / "report.json"
    path.write_text(text, "utf-8")
    with pytest.raises(SlmxError) as error:
        Report.read(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("text", ["", "tokens", "[]", "{}", '{"format_version": "1"}', '{"results": []}'])
def test_a_file_that_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    assert "not a benchmark report" in refused(tmp_path, text)


@pytest.mark.parametrize("version", [0, 2])
def test_another_version_is_refused_by_number(tmp_path: Path, version: int) -> None:
    text = replace(report([]), format_version=version).to_json()
    assert f"report format {version}, this slmx reads 1; measure again" in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("results", 0, "case", "threads"), "two"),
        (("results", 0, "case", "runner"), 3),
        (("results", 0, "case", "colour"), "red"),
        (("results", 0, "status"), "fine"),
        (("results", 0, "decode_seconds"), [0.0]),
        (("results", 0, "token_seconds"), ["fast"]),
        (("results", 0, "first_token_seconds"), None),
        (("results",), {"a": 1}),
        (("machine",), []),
        (("machine",), {"cores": 2}),
        (("models",), {"nano": {"parameters": 1}}),
    ],
)
def test_a_damaged_report_is_refused(tmp_path: Path, where: tuple[str | int, ...], value: object) -> None:
    found: Any = json.loads(report([result("int8")]).to_json())
    inner = found
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    assert "not a whole benchmark report" in refused(tmp_path, json.dumps(found))


@pytest.mark.parametrize("name", ["created", "machine", "bandwidth", "text", "models", "results", "warnings"])
def test_a_report_that_lacks_a_part_is_refused(tmp_path: Path, name: str) -> None:
    found = json.loads(report([result("int8")]).to_json())
    del found[name]
    assert name in refused(tmp_path, json.dumps(found))
