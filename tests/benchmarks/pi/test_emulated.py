"""The wheel of this tree on emulated Raspberry Pis. It downloads, so it is left out unless `-m pi` asks for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.pi.__main__ import export_variants
from benchmarks.pi.checks import FAILED, Expected, check, expect
from benchmarks.pi.machine import CPUS, Machine, cache_folder, prepare

pytestmark = [pytest.mark.pi, pytest.mark.slow]


@pytest.fixture(scope="module")
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    if request.config.getoption("markexpr") != "pi":
        pytest.skip("emulation takes minutes: make pi-check, or pytest -m pi")
    site = tmp_path_factory.mktemp("emulated") / "site"
    return prepare(cache_folder(), site)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Expected:
    return expect(export_variants(tmp_path_factory.mktemp("bundle") / "nano"))


@pytest.mark.parametrize("cpu", CPUS)
def test_stories_doctor_batch_and_server(machine: Machine, expected: Expected, cpu: str) -> None:
    results = list(check(machine, cpu, expected))
    assert [f"{result.check}: {result.note}" for result in results if result.outcome == FAILED] == []
    assert len(results) == len(expected.ids) + 5


def test_a_variant_that_writes_something_else_fails(machine: Machine, expected: Expected, tmp_path: Path) -> None:
    """The check of fp32 compares every token: one other token is a failure."""
    spoilt = Expected(expected.bundle, {"fp32": [*expected.ids["fp32"][:-1], 0]}, expected.shipped)
    failed = [result for result in check(machine, "cortex-a72", spoilt) if result.outcome == FAILED]
    assert {result.check for result in failed} >= {"generate, fp32", "generate -n 4, fp32"}
    assert f"token {len(expected.ids['fp32'])} on" in failed[0].note
