"""The charts of a report: SVG panels for the HTML page, and SVG files of whole charts in a light and a dark theme."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report import chart_panels as panels
from benchmarks.report import findings
from benchmarks.report.chart_style import FONT, PANEL, SETTINGS, dark, svg_text, with_variables
from benchmarks.report.leaderboard import presets_of
from benchmarks.report.record import Report, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UP = "tokens/s, better \N{RIGHTWARDS ARROW}"  # the text is turned, so the arrow points up
COLUMNS = 2  # panels beside each other in a file
XML = '<?xml version="1.0" encoding="utf-8"?>\n'


@dataclass(frozen=True)
class Chart:
    """A kind of chart, with a panel for each model.

    Attributes:
        name: The beginning of the names of its files.
        title: Returns what the chart shows, for the models that it shows.
        caption: How to read it, and which way is better.
        has: Returns whether there is data to draw for a model.
        draw: Draws the panel of a model.
        height: Returns the height of a panel in inches.
        xlabel: The words below a panel.
        ylabel: The words at the left of a panel.
        label: Writes labels into a panel when its size is final.
    """

    name: str
    title: Callable[[Report, Sequence[str]], str]
    caption: str
    has: Callable[[Report, str], bool]
    draw: Callable[[Axes, Report, str], None]
    height: Callable[[Report, str], float]
    xlabel: str = ""
    ylabel: str = ""
    label: Callable[[Axes, Report, str], None] = lambda axes, report, preset: None

    def presets(self, report: Report) -> list[str]:
        """Returns the models with data to draw."""
        return [preset for preset in presets_of(report) if self.has(report, preset)]


@dataclass(frozen=True)
class Picture:
    """The files of a chart.

    Attributes:
        title: What the chart shows.
        caption: How to read it.
        light: The name of the file for light pages.
        dark: The name of the file for dark pages.
    """

    title: str
    caption: str
    light: str
    dark: str


def _rows(found: Callable[[Report, str], list[Result]]) -> Callable[[Report, str], float]:
    return lambda report, preset: 0.65 + 0.26 * len(found(report, preset))


def _quality(name: str, by_size: bool, title: Callable[[Report, Sequence[str]], str], caption: str) -> Chart:
    return Chart(
        name,
        title,
        caption,
        lambda report, preset: len(panels.quality_points(report, preset, by_size)) > 1,
        lambda axes, report, preset: panels.draw_quality(axes, report, preset, by_size),
        lambda report, preset: 4.2,
        "quality kept, % of float32, better \N{RIGHTWARDS ARROW}",
        "\N{LEFTWARDS ARROW} better, MB on disk" if by_size else UP,
        lambda axes, report, preset: panels.label_quality(axes, report, preset, by_size),
    )


SPEED = Chart(
    "speed",
    findings.speed_title,
    "Tokens per second, longer is better: the recommended variant and the fastest runner of each other runtime. "
    "The thin line goes from one quartile of the rounds to the other.",
    lambda report, preset: bool(panels.with_speed(report, preset)),
    panels.draw_speed,
    _rows(panels.with_speed),
)
CHARTS = (
    SPEED,
    _quality(
        "quality-speed",
        False,
        findings.quality_speed_title,
        "Up is faster, right is better quality, so the best runners are at the top right.",
    ),
    _quality(
        "quality-size",
        True,
        findings.quality_size_title,
        "Down is smaller, right is better quality, so the best runners are at the bottom right.",
    ),
    Chart(
        "memory",
        findings.memory_title,
        "Peak memory of the process in MiB, shorter is better: the recommended variant and the smallest runner of each "
        "other runtime. The paler part of a bar is what Python and the libraries take before a model is opened.",
        lambda report, preset: bool(panels.with_memory(report, preset)),
        panels.draw_memory,
        _rows(panels.with_memory),
    ),
    Chart(
        "latency",
        findings.latency_title,
        "Milliseconds per token, left is better: the dot is the median. 95 percent of the tokens take no longer than "
        "the end of the thick line, and 99 percent no longer than the end of the thin one.",
        lambda report, preset: bool(panels.with_steps(report, preset)),
        panels.draw_latency,
        _rows(panels.with_steps),
        "\N{LEFTWARDS ARROW} better, ms per token",
    ),
    Chart(
        "threads",
        findings.threads_title,
        "Tokens per second by the number of threads, up is better.",
        lambda report, preset: bool(panels.by_threads(report, preset)),
        lambda axes, report, preset: panels.draw_lines(axes, panels.by_threads(report, preset)),
        lambda report, preset: 3.1,
        "threads",
        UP,
        lambda axes, report, preset: panels.label_lines(axes, panels.by_threads(report, preset)),
    ),
    Chart(
        "depth",
        findings.depth_title,
        "Tokens per second by the number of tokens that are in the context already, up is better.",
        lambda report, preset: bool(panels.by_depth(report, preset)),
        lambda axes, report, preset: panels.draw_lines(axes, panels.by_depth(report, preset)),
        lambda report, preset: 3.1,
        "tokens in the context",
        UP,
        lambda axes, report, preset: panels.label_lines(axes, panels.by_depth(report, preset)),
    ),
)


def drawn(chart: Chart, report: Report, presets: Sequence[str], columns: int) -> Figure:
    """Returns a figure with a panel for each of these models, in up to `columns` columns."""
    from matplotlib.figure import Figure

    columns = min(columns, len(presets))
    heights = [chart.height(report, preset) for preset in presets]
    rows = [max(heights[start : start + columns]) for start in range(0, len(presets), columns)]
    figure = Figure(figsize=(PANEL * columns, sum(rows)), layout="constrained")
    parts = list(figure.subfigures(len(rows), columns, squeeze=False, height_ratios=rows).flat)
    panels_of = {}
    for part, preset in zip(parts, presets, strict=False):
        panels_of[preset] = axes = part.subplots()
        chart.draw(axes, report, preset)
        part.suptitle(preset_title(report, preset), x=0.01, ha="left", fontsize=FONT, fontweight="bold")
        axes.set_xlabel(chart.xlabel)
        axes.set_ylabel(chart.ylabel)
    figure.draw_without_rendering()  # the panels have their size after that
    figure.set_layout_engine("none")
    for preset, axes in panels_of.items():
        chart.label(axes, report, preset)
    return figure


def preset_title(report: Report, preset: str) -> str:
    """Returns the name of a model with its size."""
    model = report.models.get(preset)
    if model is None:
        return preset
    return f"{preset}: {model.parameters / 1e6:,.1f} M parameters" + ("" if model.trained else ", random weights")


def panel(chart: Chart, report: Report, preset: str) -> str:
    """Returns the panel of a model as an SVG element for an HTML page. Its colours are variables of the page."""
    from matplotlib import rc_context

    name = f"{chart.name}-{presets_of(report).index(preset)}"
    with rc_context({**SETTINGS, "svg.hashsalt": name}):
        return with_variables(svg_text(drawn(chart, report, [preset], 1), name))


def write_pictures(report: Report, folder: Path) -> dict[str, Picture]:
    """Writes every chart that has data as two SVG files, and returns them by the name of the chart."""
    from matplotlib import rc_context

    found = {}
    for chart in CHARTS:
        presets = chart.presets(report)
        if not presets:
            continue
        with rc_context({**SETTINGS, "svg.hashsalt": chart.name}):
            text = svg_text(drawn(chart, report, presets, COLUMNS), chart.name)
        picture = Picture(
            chart.title(report, presets), chart.caption, f"{chart.name}-light.svg", f"{chart.name}-dark.svg"
        )
        (folder / picture.light).write_text(XML + text + "\n", "utf-8", newline="\n")
        (folder / picture.dark).write_text(XML + dark(text) + "\n", "utf-8", newline="\n")
        found[chart.name] = picture
    return found
