"""What a run tells about its progress where no bar can be drawn."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from benchmarks.run.progress import Meter


def test_a_log_has_a_line_for_each_group_and_each_tenth_of_the_work() -> None:
    output = StringIO()
    with Meter(Console(file=output, width=80)) as meter:
        meter.advance(1.0, "before the work is known")
        meter.expect(39.0)
        meter.expect(1.0)
        meter.begin("nano, from its start")
        for _ in range(39):
            meter.advance(1.0, "nano int8")
    tenths = [f"{tenth}0% measured" for tenth in range(1, 10)]
    assert output.getvalue().splitlines() == ["measuring nano, from its start", *tenths]
