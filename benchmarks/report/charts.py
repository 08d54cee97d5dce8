"""The charts of a report. The same code draws SVG for the HTML page, in two themes, and PNG files."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.report.fields import MIB, libraries_bytes
from benchmarks.report.leaderboard import (
    Setting,
    at_best_threads,
    fastest,
    is_ours,
    main_results,
    main_setting,
    measured,
    presets_of,
    runners_of,
    setting_of,
)
from benchmarks.report.record import Report, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

# Colours of medium lightness, so that they can be seen on white and on black.
COLOURS = ("#3b82d6", "#e0762f", "#2fa06b", "#c65bb0", "#9a7bdc", "#c9a227", "#d9534f", "#2aa5b8", "#8f8f8f", "#a0704a")
MARKERS = "osD^vPX*<>"
INK = {"light": "#1f2328", "dark": "#e6e8eb"}
WIDTH = 4.4  # inches of one column: about the width of a phone
LEGEND_LINE = 0.18  # inches
DPI = 150


@dataclass(frozen=True)
class Chart:
    """A kind of chart, with a panel for each preset.

    Attributes:
        name: The name of the PNG file, without its suffix.
        title: The title.
        caption: How to read the chart.
        has: Returns whether there is data to draw for a preset.
        draw: Draws the panel of a preset.
        height: Returns the height of a panel in inches.
        legend: Whether the chart has a legend.
    """

    name: str
    title: str
    caption: str
    has: Callable[[Report, str], bool]
    draw: Callable[[Axes, Report, str], None]
    height: Callable[[Report, str], float]
    legend: bool = True

    def presets(self, report: Report) -> list[str]:
        """Return the presets with data to draw."""
        return [preset for preset in presets_of(report) if self.has(report, preset)]


def _style(report: Report, runner: str) -> dict[str, Any]:
    """Return the colour and the marker of a runner, the same in every chart. Markers of our variants are filled."""
    number = runners_of(report).index(runner)
    colour = COLOURS[number % len(COLOURS)]
    return {
        "color": colour,
        "marker": MARKERS[(number + number // len(COLOURS)) % len(MARKERS)],
        "markerfacecolor": colour if is_ours(runner) else "none",
        "linestyle": "-" if is_ours(runner) else "--",
        "label": runner,
    }


def _with_quality(report: Report, preset: str) -> list[Result]:
    return [result for result in main_results(report, preset).values() if result.bpb_increase is not None]


def _draw_quality(axes: Axes, report: Report, preset: str) -> None:
    from matplotlib.ticker import FuncFormatter

    for result in _with_quality(report, preset):
        speed = result.decode.median if result.decode is not None else math.nan
        style = _style(report, result.case.runner) | {"linestyle": "none", "markersize": 8}
        axes.plot([(result.bpb_increase or 0) * 100], [speed], **style)
    axes.set_xscale("symlog", linthresh=0.1, linscale=0.5)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.margins(0.12)
    _log_speed(axes)
    axes.set_xlabel("increase of bits per byte, %")


def _log_ticks(axis: Axis, low: float, high: float) -> None:
    """Put enough plain numbers on a logarithmic axis, even if its range is small."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    span = high / low
    steps = (1,) if span > 1000 else (1, 2, 5) if span > 6 else (1, 1.5, 2, 3, 4, 5, 7)
    axis.set_major_locator(LogLocator(subs=steps) if span > 2 else MaxNLocator(4, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def _log_speed(axes: Axes) -> None:
    axes.set_yscale("log")
    _log_ticks(axes.yaxis, *axes.get_ylim())
    axes.set_ylabel("tokens/s")


def _with_memory(report: Report, preset: str) -> list[Result]:
    return [
        result
        for result in main_results(report, preset).values()
        if result.peak_bytes is not None and libraries_bytes(result) is not None
    ]


def _draw_memory(axes: Axes, report: Report, preset: str) -> None:
    results = _with_memory(report, preset)[::-1]
    runners = [result.case.runner for result in results]
    left = [0.0] * len(results)
    parts = {
        "interpreter": [result.interpreter_bytes or 0 for result in results],
        "libraries": [libraries_bytes(result) or 0 for result in results],
        "model and buffers": [(result.peak_bytes or 0) - (result.imports_bytes or 0) for result in results],
    }
    for (name, values), colour in zip(parts.items(), ("#8f8f8f", COLOURS[0], COLOURS[1]), strict=True):
        widths = [value / MIB for value in values]
        axes.barh(runners, widths, left=left, color=colour, label=name, height=0.65)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for row, total in enumerate(left):
        axes.annotate(f"{total:,.0f}", (total, row), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8)
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, max(left) * 1.15)
    axes.set_xlabel("peak resident memory, MiB")


def _with_steps(report: Report, preset: str) -> list[Result]:
    return [result for result in main_results(report, preset).values() if result.percentile(50) is not None]


def _draw_latency(axes: Axes, report: Report, preset: str) -> None:
    results = _with_steps(report, preset)[::-1]
    for row, result in enumerate(results):
        colour = _style(report, result.case.runner)["color"]
        middle, high, highest = (1000 * (result.percentile(share) or 0) for share in (50, 95, 99))
        axes.plot([middle, highest], [row, row], color=colour, linewidth=2, alpha=0.6)
        for value, marker, size in ((middle, "o", 8), (high, "|", 11), (highest, ">", 7)):
            axes.plot([value], [row], color=colour, marker=marker, markersize=size, markeredgewidth=2)
    axes.set_yticks(range(len(results)), [result.case.runner for result in results])
    axes.set_ylim(-0.6, len(results) - 0.4)
    axes.set_xscale("log")
    _log_ticks(axes.xaxis, *axes.get_xlim())
    axes.set_xlabel("ms per token: ● p50   | p95   ▶ p99")


Line = tuple[list[float], list[float]]


def _by_depth(report: Report, preset: str) -> dict[str, Line]:
    setting = main_setting(report, preset)
    if setting is None:
        return {}
    depths = sorted({result.case.depth for result in measured(report) if result.case.preset == preset})
    points: dict[str, list[tuple[float, float]]] = {}
    for depth in depths:
        results = at_best_threads(report, preset, Setting(setting.batch, depth, setting.prompt_tokens))
        for runner, result in results.items():
            if result.decode is not None:
                points.setdefault(runner, []).append((depth, result.decode.median))
    return _lines(points)


def _by_threads(report: Report, preset: str) -> dict[str, Line]:
    setting = main_setting(report, preset)
    points: dict[str, list[tuple[float, float]]] = {}
    of_preset = [result for result in measured(report) if result.case.preset == preset]
    for threads in sorted({result.case.threads for result in of_preset}):
        for runner in runners_of(report):
            best = fastest(
                result
                for result in of_preset
                if result.case.threads == threads
                and result.case.runner == runner
                and setting_of(result.case) == setting
            )
            if best is not None and best.decode is not None:
                points.setdefault(runner, []).append((threads, best.decode.median))
    return _lines(points)


def _lines(points: dict[str, list[tuple[float, float]]]) -> dict[str, Line]:
    """Return the x and y values of the runners that have at least two points."""
    return {
        runner: ([x for x, _ in found], [y for _, y in found]) for runner, found in points.items() if len(found) > 1
    }


def _apart(values: list[float]) -> list[float]:
    """Return ascending values without those that are so near the value before that their labels would overlap."""
    kept = values[:1]
    for value in values[1:]:
        if value - kept[-1] > 0.08 * (values[-1] - values[0]):
            kept.append(value)
    return kept


def _draw_lines(axes: Axes, report: Report, lines: dict[str, Line], label: str) -> None:
    for runner, (x, y) in lines.items():
        axes.plot(x, y, markersize=6, **_style(report, runner))
    axes.set_xticks(_apart(sorted({value for x, _ in lines.values() for value in x})))
    _log_speed(axes)
    axes.set_xlabel(label)


def _rows_height(found: Callable[[Report, str], list[Result]]) -> Callable[[Report, str], float]:
    return lambda report, preset: 0.9 + 0.27 * len(found(report, preset))


CHARTS = (
    Chart(
        "quality",
        "Speed and increase of bits per byte",
        "Higher is faster, left is better quality. Filled marks are our variants.",
        lambda report, preset: len(_with_quality(report, preset)) > 1,
        _draw_quality,
        lambda report, preset: 2.7,
    ),
    Chart(
        "memory",
        "Peak memory",
        "The parts of an empty Python process, of the libraries, and of the model with its buffers.",
        lambda report, preset: bool(_with_memory(report, preset)),
        _draw_memory,
        _rows_height(_with_memory),
    ),
    Chart(
        "latency",
        "Time per token",
        "50, 95 and 99 percent of the tokens take no longer than their marks.",
        lambda report, preset: bool(_with_steps(report, preset)),
        _draw_latency,
        _rows_height(_with_steps),
        legend=False,
    ),
    Chart(
        "depth",
        "Speed by depth",
        "Depth is the number of tokens in the context before the prompt. Each runner is at its best number of threads.",
        lambda report, preset: bool(_by_depth(report, preset)),
        lambda axes, report, preset: _draw_lines(axes, report, _by_depth(report, preset), "depth, tokens"),
        lambda report, preset: 2.7,
    ),
    Chart(
        "threads",
        "Speed by threads",
        "All other settings are those of the main figures.",
        lambda report, preset: bool(_by_threads(report, preset)),
        lambda axes, report, preset: _draw_lines(axes, report, _by_threads(report, preset), "threads"),
        lambda report, preset: 2.7,
    ),
)


def _render(
    chart: Chart, report: Report, ink: str, columns: int, target: io.BytesIO | Path, save: dict[str, Any]
) -> None:
    """Draw the panels of a chart in up to `columns` columns; `save` are arguments of matplotlib's savefig."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    presets = chart.presets(report)
    columns = min(columns, len(presets))
    heights = [chart.height(report, preset) for preset in presets]
    rows = [max(heights[start : start + columns]) for start in range(0, len(presets), columns)]
    settings: dict[Any, Any] = dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), ink
    )
    settings |= {
        "font.size": 9,
        "axes.grid": True,
        "grid.alpha": 0.2,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "legend.frameon": False,
        "text.parse_math": False,
        "svg.fonttype": "none",
        "svg.hashsalt": chart.name,
    }
    with rc_context(settings):
        figure = Figure(figsize=(WIDTH * columns, sum(rows) + 0.1), layout="constrained")
        grid = figure.subplots(len(rows), columns, squeeze=False, height_ratios=rows)
        panels = list(grid.flat)
        labels: dict[str, Any] = {}
        for axes, preset in zip(panels, presets, strict=False):
            chart.draw(axes, report, preset)
            axes.set_title(preset, loc="left", fontweight="bold")
            handles, names = axes.get_legend_handles_labels()
            labels |= dict(zip(names, handles, strict=True))
        for axes in panels[len(presets) :]:
            axes.set_axis_off()
        if chart.legend:
            ncols = 2 * columns
            figure.set_figheight(figure.get_figheight() + LEGEND_LINE * math.ceil(len(labels) / ncols))
            figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=ncols, fontsize=8)
        figure.savefig(target, **save)


def svg(chart: Chart, report: Report, theme: str) -> str:
    """Return a chart as an SVG element for an HTML page, with a transparent background, for the light or dark theme."""
    target = io.BytesIO()
    _render(chart, report, INK[theme], 1, target, {"format": "svg", "facecolor": "none", "metadata": {"Date": None}})
    text = target.getvalue().decode("utf-8")
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{chart.name}-{theme}-", text).strip()


def write_pngs(report: Report, folder: Path) -> Iterator[tuple[str, str]]:
    """Write every chart that has data as NAME.png with a white background; yield its title and file name."""
    for chart in CHARTS:
        if chart.presets(report):
            path = folder / f"{chart.name}.png"
            _render(chart, report, INK["light"], 2, path, {"format": "png", "dpi": DPI, "facecolor": "white"})
            yield chart.title, path.name
