"""The tables of rises over fp32. One story has no interval."""

from __future__ import annotations

import pytest

from benchmarks.evaluation.intervals import Estimate
from benchmarks.studies import after_prompt, int4_rules
from benchmarks.studies.after_prompt import IN_ONE_PASS, TOKEN_BY_TOKEN
from benchmarks.studies.int4_rules import FLOAT, PRESENT

NAN = float("nan")
MANY, ONE = Estimate(0.0014, 0.0012, 0.0016, 0.0001, 9).to_json(), Estimate(0.0014, NAN, NAN, NAN, 1).to_json()


@pytest.mark.parametrize(("found", "cell"), [(MANY, "+0.14% +-0.02%"), (ONE, "+0.14%")])
def test_a_rise_after_a_prompt(found: dict[str, float | int | None], cell: str) -> None:
    rows = {"16": {"tokens": 1200, IN_ONE_PASS: found, TOKEN_BY_TOKEN: found}}
    assert after_prompt.table(rows).splitlines()[-1] == f"| 16 | 1,200 | {cell} | {cell} |"


@pytest.mark.parametrize(
    ("found", "cells"), [(MANY, "+0.14% +-0.02% | +0.14% (+0.12% to +0.16%)"), (ONE, "+0.14% | +0.14%")]
)
def test_a_rise_of_a_rule(found: dict[str, float | int | None], cells: str) -> None:
    row = {"bytes": 1000, "rise": found, "against the export's": found}
    lines = int4_rules.table({FLOAT: row, "GPTQ": row, PRESENT: row}).splitlines()
    assert lines[2] == f"| GPTQ | 1,000 | {cells} |"
    assert lines[3].endswith("|  |")
    assert len(lines) == 4
