"""The peak memory of a command is its own, not that of the process that started it, and a failure is one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.child import output_of
from benchmarks.studies import prepare_memory
from benchmarks.studies.export_cost import export_all
from benchmarks.studies.memory import peak_of, with_peak
from slm.console.errors import SlmxError

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="VmHWM is of Linux")

HELD = 200_000_000


@pytest.mark.slow
def test_the_peak_of_prepare_is_not_that_of_this_process(tmp_path: Path) -> None:
    held, out = np.ones(HELD, np.int8), tmp_path / "results.json"
    prepare_memory.main(gigabytes=0.001, out=out)
    assert 0 < json.loads(out.read_text("utf-8"))["results"]["peak_memory_bytes"] < len(held)


def test_the_peak_is_after_the_output_of_a_command() -> None:
    output = output_of(with_peak("presets"), "slmx presets")
    assert "nano" in output
    assert peak_of(output) > 1_000_000


@pytest.mark.slow
def test_an_export_that_fails_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bundle").write_text("a file")
    with pytest.raises(SlmxError, match="slmx export of nano failed: exit code 1"):
        export_all("nano", tmp_path / "bundle")
    assert capfd.readouterr().err.startswith("slmx: ")
    with pytest.raises(SlmxError, match=r"slmx generate failed: slmx: .*no bundle here"):
        output_of(with_peak("generate", "One day", "--bundle", str(tmp_path / "none")), "slmx generate")
