"""The charts of a report: their content, their position, and their look in a page and in a file."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from benchmarks.report.charts import CHARTS, svg, write_pngs
from benchmarks.report.leaderboard import main_results, runners_of
from benchmarks.report.record import Case, Report, Result
from tests.report_samples import NEW_TOKENS, large_report, report, result, strange_report

BARE = Result(Case("nano", "int8", 1, 4, 0, NEW_TOKENS), decode_seconds=[1.0, 1.1])


@pytest.fixture(scope="module")
def large() -> Report:
    """Two presets, five runners."""
    return large_report()


@pytest.mark.slow
def test_charts_are_xml_that_repeats_with_readable_ink(large: Report) -> None:
    for chart in CHARTS:
        light, dark = svg(chart, large, "light"), svg(chart, large, "dark")
        assert light == svg(chart, large, "light")
        assert [ElementTree.fromstring(text).tag for text in (light, dark)] == ["svg", "svg"]
        assert "#e6e8eb" in dark
        assert "#e6e8eb" not in light
        assert "nano" in light
        assert not re.search(r"fill: #ffffff", light + dark)


def test_a_chart_is_there_only_where_there_is_data(large: Report, tmp_path: Path) -> None:
    only_speed = report([BARE, replace(BARE, case=replace(BARE.case, threads=2))])
    assert [chart.name for chart in CHARTS if chart.presets(only_speed)] == ["threads"]
    assert list(write_pngs(only_speed, tmp_path)) == [("Speed by threads", "threads.png")]
    assert [path.name for path in tmp_path.iterdir()] == ["threads.png"]
    assert (tmp_path / "threads.png").read_bytes().startswith(b"\x89PNG")
    for chart in CHARTS:
        assert chart.presets(large) == ["nano", "medium"]


def drawn(name: str, run: Report) -> Axes:
    """The panel of nano in a chart."""
    axes = Figure().subplots()
    next(chart for chart in CHARTS if chart.name == name).draw(axes, run, "nano")
    return axes


def points(axes: Axes, label: str) -> list[tuple[float, float]]:
    """The data that a panel draws under a label."""
    (line,) = (line for line in axes.lines if line.get_label() == label)
    return [(x, y) for x, y in np.asarray(line.get_xydata()).tolist()]


def test_charts_draw_the_figures(large: Report) -> None:
    assert points(drawn("quality", large), "int8") == [pytest.approx((0.18, 7500))]
    assert points(drawn("threads", large), "int8") == [pytest.approx((1, 5000)), pytest.approx((2, 7500))]
    depths = [(0, 7500), (64, 7500 / 1.064), (192, 7500 / 1.192)]
    assert points(drawn("depth", large), "int8") == [pytest.approx(point) for point in depths]
    bars = drawn("memory", large)
    widths = [[float(bar.get_width()) for bar in part] for part in bars.containers if isinstance(part, BarContainer)]
    assert [label.get_text() for label in bars.get_yticklabels()][-2:] == ["int8", "llama.cpp Q4_0"]
    assert [part[-2] for part in widths] == [10, 45, 20]
    best = main_results(large, "nano")["torch eager"]
    marks = [np.asarray(line.get_xydata())[0, 0] for line in drawn("latency", large).lines[1:4]]
    assert marks == pytest.approx([1000 * (best.percentile(share) or 0) for share in (50, 95, 99)])


def test_our_runners_come_first_in_colours_and_legends() -> None:
    runners = ["torch eager", "int8", "llama.cpp Q4_0", "fp32"]
    run = report([result(runner) for runner in runners])
    assert runners_of(run) == ["int8", "fp32", "torch eager", "llama.cpp Q4_0"]
    colours = {line.get_label(): line.get_markerfacecolor() for line in drawn("quality", run).lines}
    assert [colours[runner] == "none" for runner in runners_of(run)] == [False, False, True, True]


def test_a_name_with_dollars_is_no_formula() -> None:
    chart = next(chart for chart in CHARTS if chart.name == "quality")
    drawn = svg(chart, strange_report("a $\\frac{$ b $x^2$"), "light")
    assert "a $\\frac{$ b $x^2$" in "".join(ElementTree.fromstring(drawn).itertext())
