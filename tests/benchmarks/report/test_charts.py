"""The charts of a report: their figures, their titles, their labels, and their look in a page and in a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from benchmarks.report import chart_panels as panels
from benchmarks.report.chart_style import (
    COLOURS,
    GROUND,
    LINE,
    SETTINGS,
    colour_of,
    dark,
    plain_ticks,
    style_sheet,
    with_variables,
)
from benchmarks.report.charts import CHARTS, Chart, drawn, panel, write_pictures
from benchmarks.report.families import UNKNOWN
from benchmarks.report.leaderboard import main_results
from benchmarks.report.reader import read_report
from benchmarks.report.record import FAILED, Case, Report, Result
from tests.report_samples import MIB, NEW_TOKENS, large_report, report, result, strange_report

BARE = Result(Case("nano", "int8", 1, 4, 0, NEW_TOKENS), decode_seconds=[1.0, 1.1])
DOCS = Path(__file__).resolve().parents[3] / "docs"
MOST_BYTES = 60_000


@pytest.fixture(scope="module")
def large() -> Report:
    """Two presets, five runners."""
    return large_report()


@pytest.fixture(scope="module")
def published() -> Report:
    """The report of docs/benchmarks.md: four presets, twenty runners."""
    return read_report(DOCS / "benchmarks.json")


def chart(name: str) -> Chart:
    return next(one for one in CHARTS if one.name == name)


def axes_of(name: str, run: Report) -> Axes:
    """The panel of nano in a chart."""
    with rc_context(SETTINGS):
        return drawn(chart(name), run, ["nano"], 1).get_axes()[0]


def points(axes: Axes) -> list[list[tuple[float, float]]]:
    return [[(x, y) for x, y in np.asarray(line.get_xydata()).tolist()] for line in axes.lines]


def names(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def lengths(axes: Axes) -> list[float]:
    return [float(bar.get_width()) for bar in axes.patches if isinstance(bar, Rectangle)]


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def extent(text: Text) -> Bbox:
    """The box around the words of a text, without its line to a point."""
    text.get_window_extent()  # this puts an annotation where it belongs
    return Text.get_window_extent(text)


def test_bars_of_speed_are_ours_and_the_best_of_each_other_runtime(large: Report) -> None:
    axes = axes_of("speed", large)
    assert names(axes) == ["llama.cpp Q4_0", "slmx int8", "PyTorch eager"]
    assert lengths(axes) == pytest.approx([8250, 7500, 600])
    assert texts(axes) == ["8,250", "7,500", "600"]
    assert axes.yaxis_inverted()


def test_the_thin_line_of_a_speed_goes_from_quartile_to_quartile() -> None:
    rates = [80.0, 90.0, 100.0, 101.0, 102.0]  # the quartiles are 85 and 101.5: the median is not in the middle
    one = replace(result("int8"), decode_seconds=[(NEW_TOKENS - 1) / rate for rate in rates])
    axes = axes_of("speed", report([one]))
    assert points(axes) == [[pytest.approx((85, 0)), pytest.approx((101.5, 0))]]
    assert axes.texts[0].xy == pytest.approx((101.5, 0))  # type: ignore[attr-defined]


def test_bars_of_memory_are_sorted_by_memory(large: Report) -> None:
    axes = axes_of("memory", large)
    assert names(axes) == ["llama.cpp Q4_0", "slmx int8", "PyTorch eager"]
    assert lengths(axes) == [60, 75, 260, 50, 55, 55]
    light = replace(result("llama.cpp Q8_0", threads=2), peak_bytes=MIB)
    others = [one for one in large.results if one.case.runner != "llama.cpp Q8_0"]
    assert names(axes_of("memory", report([*others, light])))[0] == "llama.cpp Q8_0"


def test_latency_is_an_interval_from_the_median_to_the_99th_percentile(large: Report) -> None:
    axes = axes_of("latency", large)
    one = next(one for one in panels.with_steps(large, "nano") if one.case.runner == "int8")
    middle, high, highest = (1000 * (one.percentile(share) or 0) for share in (50, 95, 99))
    row = names(axes).index("slmx int8")
    thick, thin, dot = points(axes)[3 * row : 3 * row + 3]
    assert thick == [pytest.approx((middle, row)), pytest.approx((high, row))]
    assert thin == [pytest.approx((high, row)), pytest.approx((highest, row))]
    assert dot == [pytest.approx((middle, row))]
    assert {line.get_marker() for line in axes.lines} == {"None", "o"}


def test_lines_end_at_their_names(large: Report) -> None:
    threads, speeds = panels.by_threads(large, "nano")["int8"]
    assert threads == [1, 2]
    assert speeds == pytest.approx([5000, 7500])
    depths, speeds = panels.by_depth(large, "nano")["int8"]
    assert depths == [0, 64, 192]
    assert speeds == pytest.approx([7500, 7500 / 1.064, 7500 / 1.192])
    for name, found in (("threads", panels.by_threads), ("depth", panels.by_depth)):
        axes = axes_of(name, large)
        ends = {text.get_text(): text.xy for text in axes.texts}  # type: ignore[attr-defined]
        lines = found(large, "nano")
        assert set(ends.values()) == {(x[-1], y[-1]) for x, y in lines.values()}
        order = sorted(ends, key=lambda text: ends[text][1])
        heights = {text.get_text(): extent(text).y0 for text in axes.texts}
        assert sorted(heights, key=heights.__getitem__) == order


def test_quality_has_a_point_for_each_runner_whose_quality_is_known(large: Report) -> None:
    unknown = replace(result("llama.cpp Q8_0"), bpb_increase=None)
    run = report([result("int8"), result("fp32"), unknown])
    assert [one.case.runner for _, _, one in panels.quality_points(run, "nano", by_size=True)] == ["int8", "fp32"]
    found = {one.case.runner: (lost, value) for lost, value, one in panels.quality_points(large, "nano", False)}
    assert found["int8"] == pytest.approx((100 * (1 - 1 / 1.0018), 7500))
    assert found["fp32"] == pytest.approx((0, 6000))
    written = set(texts(axes_of("quality-speed", large)))
    assert written == {"slmx int8", "slmx fp32", "PyTorch eager", "llama.cpp Q4_0", "llama.cpp Q8_0"}
    assert axes_of("quality-speed", large).xaxis_inverted()


def test_points_that_cover_each_other_share_a_label() -> None:
    same = [replace(result("fp32"), case=replace(result("fp32").case, runner=name)) for name in "abcd"]
    assert "slmx fp32 and 4 others" in texts(axes_of("quality-size", report([result("int8"), result("fp32"), *same])))


def boxes(figure: Figure) -> Iterator[tuple[str, Bbox]]:
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text.get_visible() and text.get_text().strip():
            yield text.get_text(), extent(text)


@pytest.mark.slow
@pytest.mark.parametrize("name", [one.name for one in CHARTS])
def test_every_label_is_inside_its_picture(name: str, published: Report) -> None:
    presets = chart(name).presets(published)
    for shown, columns in ((presets, 2), (presets[:1], 1)):
        with rc_context(SETTINGS):
            figure = drawn(chart(name), published, shown, columns)
        found = list(boxes(figure))
        assert found
        for text, box in found:
            assert figure.bbox.x0 <= box.x0, text
            assert box.x1 <= figure.bbox.x1, text
            assert figure.bbox.y0 <= box.y0, text
            assert box.y1 <= figure.bbox.y1, text


@pytest.mark.parametrize("by_ends", [True, False])
def test_no_label_covers_another(by_ends: bool, published: Report) -> None:
    axes = axes_of("threads" if by_ends else "quality-speed", published)
    found = [(text.get_text(), extent(text)) for text in axes.texts]
    for number, (name, box) in enumerate(found):
        for other, second in found[:number]:
            apart = box.x1 <= second.x0 or second.x1 <= box.x0 or box.y1 <= second.y0 + 3 or second.y1 <= box.y0 + 3
            assert apart, f"{name} and {other}"


@pytest.mark.slow
def test_pictures_are_small_and_have_both_themes(published: Report, tmp_path: Path) -> None:
    for picture in write_pictures(published, tmp_path).values():
        light, night = ((tmp_path / name).read_text("utf-8") for name in (picture.light, picture.dark))
        assert len(light.encode()) < MOST_BYTES
        assert len(night.encode()) < MOST_BYTES
        assert {ElementTree.fromstring(text).tag for text in (light, night)} == {"{http://www.w3.org/2000/svg}svg"}
        assert set(re.findall(r"#[0-9a-f]{6}\b", night)) <= {one.dark for one in (*COLOURS, GROUND)}
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", light)


@pytest.mark.slow
def test_the_pictures_of_the_documents_are_those_of_the_published_report(published: Report, tmp_path: Path) -> None:
    write_pictures(published, tmp_path)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {path.name for path in (DOCS / "benchmarks").iterdir()}


def test_a_chart_is_there_only_where_there_is_data(large: Report, tmp_path: Path) -> None:
    only_speed = report([BARE, replace(BARE, case=replace(BARE.case, threads=2))])
    assert [one.name for one in CHARTS if one.presets(only_speed)] == ["speed", "threads"]
    assert list(write_pictures(only_speed, tmp_path)) == ["speed", "threads"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{name}-{theme}.svg" for name in ("speed", "threads") for theme in ("dark", "light")
    ]
    failed = replace(result("llama.cpp Q4_0"), status=FAILED)
    assert names(axes_of("speed", report([result("int8"), failed]))) == ["slmx int8"]
    for one in CHARTS:
        assert one.presets(large) == ["nano", "medium"]


def test_drawings_repeat_and_a_page_gives_them_their_colours(large: Report) -> None:
    text = panel(chart("speed"), large, "nano")
    assert text == panel(chart("speed"), large, "nano")
    assert not re.search(r"#[0-9a-f]{6}\b", text)
    used = set(re.findall(r"var\((--c\d+)\)", text))
    for theme in ("light", "dark"):
        assert used <= set(re.findall(r"--c\d+", style_sheet(theme)))


def test_a_theme_changes_every_colour() -> None:
    light = " ".join(colour.light for colour in (*COLOURS, GROUND))
    assert dark(light) == " ".join(colour.dark for colour in (*COLOURS, GROUND))
    assert "#" not in with_variables(light)
    assert len({colour.light for colour in COLOURS}) == len(COLOURS)
    assert UNKNOWN in COLOURS


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_colour_of_a_text_or_a_mark_can_be_seen(theme: str) -> None:
    ground = luminance(getattr(GROUND, theme))
    for colour in COLOURS:
        if colour != LINE:
            bright, faint = sorted((luminance(getattr(colour, theme)), ground), reverse=True)
            assert (bright + 0.05) / (faint + 0.05) >= 4.5, colour


def test_a_family_has_one_colour_and_ours_have_one_hue() -> None:
    assert colour_of("llama.cpp Q8_0", "int8") == colour_of("llama.cpp F32", "int8")
    ours = {colour_of(runner, "int8") for runner in ("int8", "fp32", "int4")}
    assert len(ours) == 2
    assert all(int(colour[5:7], 16) > int(colour[3:5], 16) > int(colour[1:3], 16) for colour in ours)


@pytest.mark.parametrize(("low", "high"), [(100, 900), (61, 64), (0.1, 20), (500, 10_000), (59, 101), (3, 3000)])
def test_a_logarithmic_axis_has_some_plain_numbers(low: float, high: float) -> None:
    ticks = plain_ticks(low, high)
    assert 2 <= len(ticks) <= 9
    assert low <= min(ticks) <= max(ticks) <= high


def test_titles_say_what_was_found(large: Report) -> None:
    titles = {one.name: one.title(large, one.presets(large)) for one in CHARTS}
    slowest = 1000 * (main_results(large, "nano")["int8"].percentile(99) or 0)
    assert titles == {
        "speed": "llama.cpp Q4_0 is faster than slmx int8",
        "quality-speed": "slmx int8 keeps 99.8 % of float32's quality at 1.2x its speed",
        "quality-size": "slmx int8 keeps 99.8 % of float32's quality in 27 % of its size",
        "memory": "llama.cpp needs the least memory; slmx int8 needs 75 MiB with nano",
        "latency": f"slmx int8 with nano: 99 of 100 tokens take no more than {slowest:.3f} ms",
        "threads": "2 threads make slmx int8 faster: 1.5x with nano and 1.5x with medium",
        "depth": "slmx int8 keeps 84 % with nano and 84 % with medium of its speed in a fuller context",
    }


@pytest.mark.parametrize(
    ("others", "title"),
    [
        ([], "slmx int8 writes 5,000 tokens/s"),
        ([result("torch eager")], "slmx int8 is 12x as fast as PyTorch"),
        (
            [result("torch eager"), result("llama.cpp Q8_0")],
            "slmx int8 is at least 1.7x as fast as the 2 other runtimes",
        ),
        ([result("llama.cpp Q8_0", speed=5001)], "No other runtime is faster than slmx int8 by more than the noise"),
        ([result("llama.cpp Q8_0", speed=7000)], "llama.cpp Q8_0 is faster than slmx int8"),
        (
            [result("llama.cpp Q8_0", speed=7000), result("int8", "micro")],
            "llama.cpp Q8_0 is faster than slmx int8 with nano",
        ),
    ],
)
def test_the_title_of_the_speeds_knows_the_noise(others: list[Result], title: str) -> None:
    run = report([result("int8"), *others])
    assert chart("speed").title(run, chart("speed").presets(run)) == title


def test_titles_of_one_lonely_runner() -> None:
    run = report([result("int8"), result("int8", threads=2, speed=5001), result("int8", depth=64)])
    titles = {one.name: one.title(run, one.presets(run)) for one in CHARTS if one.presets(run)}
    assert titles["memory"] == "slmx int8 needs 75 MiB with nano"
    assert titles["threads"] == "2 threads make slmx int8 no faster"
    without = report([result("torch eager"), result("torch eager", threads=2), result("llama.cpp Q8_0")])
    for one in CHARTS:
        if one.presets(without):
            assert one.title(without, one.presets(without))


def test_a_name_with_dollars_is_no_formula() -> None:
    name = "a $\\frac{$ b $x^2$"
    text = panel(chart("speed"), strange_report(name), "nano")
    assert name in "".join(ElementTree.fromstring(text).itertext())
