"""Schemathesis makes requests from the description of the server, and checks every answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.suites.conftest import KEY

pytest.importorskip("schemathesis", reason="needs the extra [suites]")

pytestmark = [pytest.mark.suites, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
FULL = "SLMX_FULL_SUITES"  # if this variable is set, there are at least 10,000 requests
QUICK_EXAMPLES, FULL_EXAMPLES = 30, 1200  # for each operation
LEAST_QUICK, LEAST_FULL = 500, 10_000
SEED = 1


def test_what_the_description_allows_is_answered_and_the_rest_is_refused(described: str, tmp_path: Path) -> None:
    """The phases are: each value at its limits, random bodies, and requests that follow from answers.

    `rules.py` takes the place of the check that a request which the description allows is never refused.
    """
    is_full, report = bool(os.environ.get(FULL)), tmp_path / "report.json"
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{described}/openapi.json"),
        *("--header", f"Authorization: Bearer {KEY}", "--request-timeout", "60"),
        *("--checks", "all", "--exclude-checks", "positive_data_acceptance", "--continue-on-failure"),
        *("--max-examples", str(FULL_EXAMPLES if is_full else QUICK_EXAMPLES), "--seed", str(SEED)),
        *("--generation-database", "none", "--report", "json", "--report-json-path", str(report), "--no-color"),
    ]
    variables = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.suites.rules", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads(report.read_text("utf-8"))
    cases = found["test_cases"]
    print(f"{cases['generated']:,} requests in {found['running_time']:.0f} s, {found['schemathesis_version']}")
    assert found["operations"]["tested"] == found["operations"]["total"]
    assert (cases["errored"], cases["with_failures"]) == (0, 0)
    assert cases["generated"] >= (LEAST_FULL if is_full else LEAST_QUICK)
