"""Draws one panel of a chart, for one model. The bars and lines are those of the runners that `contenders` chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.report.chart_labels import Label, merged, place, place_at_ends
from benchmarks.report.chart_style import INK, LINE, QUIET, SMALL, bare, colour_of, plain_axis
from benchmarks.report.families import SLMX, family_of, is_ours, title_of
from benchmarks.report.fields import MIB, libraries_bytes, three_figures
from benchmarks.report.leaderboard import (
    Setting,
    at_best_threads,
    contenders,
    families,
    fastest,
    in_order,
    main_results,
    main_setting,
    measured,
    quality_increase,
    recommended,
    setting_of,
    speed,
)
from benchmarks.report.record import Report, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAR = 0.68  # of the distance between two bars
ROOM = 1.25  # the width of a panel of bars, relative to its longest bar: the text is after the bar
Line = tuple[list[float], list[float]]


def _bars(axes: Axes, results: list[Result], widths: list[float], texts: list[str], ends: list[float]) -> None:
    """Draws a bar for each result, the first on top, with its name before it and its text after its end."""
    names = [title_of(result.case.runner) for result in results]
    rows = list(range(len(results)))
    own = recommended(result.case.runner for result in results)
    colours = [colour_of(result.case.runner, own) for result in results]
    axes.barh(rows, widths, BAR, color=colours)
    axes.set_yticks(rows, names)
    axes.invert_yaxis()
    axes.set_xlim(0, max(ends) * ROOM)
    bare(axes)
    for row, (result, text) in enumerate(zip(results, texts, strict=True)):
        strong = "bold" if is_ours(result.case.runner) else "normal"
        axes.get_yticklabels()[row].set_fontweight(strong)
        axes.annotate(
            text,
            (ends[row], row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
            fontweight=strong,
            color=INK.light,
        )


def with_speed(report: Report, preset: str) -> list[Result]:
    """Returns the runners that the chart of speeds shows, the fastest first."""
    return contenders(main_results(report, preset))


def draw_speed(axes: Axes, report: Report, preset: str) -> None:
    """Draws bars of tokens per second, with a thin line from one quartile to the other."""
    results = with_speed(report, preset)
    widths = [speed(result) for result in results]
    quartiles = [result.decode.quartiles for result in results if result.decode is not None]
    texts = [three_figures(width) for width in widths]
    _bars(axes, results, widths, texts, [third for _, third in quartiles])
    for row, ends in enumerate(quartiles):
        axes.plot(ends, [row, row], color=QUIET.light, linewidth=1.2, solid_capstyle="butt")


def with_memory(report: Report, preset: str) -> list[Result]:
    """Returns the recommended variant and the runner of each family with the least memory, the least first."""
    results = main_results(report, preset)
    known = {runner: result for runner, result in results.items() if result.peak_bytes is not None}
    own = recommended(known)
    chosen = [min(group, key=_peak) for group in families(known).values()]
    return sorted([*chosen, *([known[own]] if own is not None else [])], key=_peak)


def _peak(result: Result) -> int:
    return result.peak_bytes or 0


def draw_memory(axes: Axes, report: Report, preset: str) -> None:
    """Draws bars of peak memory. The pale part is there before the model is opened: Python and the libraries."""
    results = with_memory(report, preset)
    widths = [_peak(result) / MIB for result in results]
    _bars(axes, results, widths, [f"{width:,.0f}" for width in widths], widths)
    before = [(result.imports_bytes or 0) / MIB if libraries_bytes(result) is not None else 0 for result in results]
    axes.barh(range(len(results)), before, BAR, color="#ffffff", alpha=0.5, linewidth=0)


def with_steps(report: Report, preset: str) -> list[Result]:
    """Returns the runners of the chart of speeds that report the time of each token, the quickest first."""
    found = [result for result in with_speed(report, preset) if result.percentile(50) is not None]
    return sorted(found, key=lambda result: result.percentile(50) or 0)


def draw_latency(axes: Axes, report: Report, preset: str) -> None:
    """Draws the interval from the median to the 99th percentile of the time of a token."""
    results = with_steps(report, preset)
    own = recommended(result.case.runner for result in results)
    for row, result in enumerate(results):
        colour = colour_of(result.case.runner, own)
        middle, high, highest = (1000 * (result.percentile(share) or 0) for share in (50, 95, 99))
        axes.plot([middle, high], [row, row], color=colour, linewidth=5, solid_capstyle="butt")
        axes.plot([high, highest], [row, row], color=colour, linewidth=1.5, solid_capstyle="butt")
        axes.plot([middle], [row], "o", color=colour, markersize=7)
        axes.annotate(
            f"{three_figures(middle)} to {three_figures(highest)}",
            (highest, row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
            color=INK.light,
        )
    axes.set_yticks(range(len(results)), [title_of(result.case.runner) for result in results])
    for tick, result in zip(axes.get_yticklabels(), results, strict=True):
        tick.set_fontweight("bold" if is_ours(result.case.runner) else "normal")
    axes.set_ylim(len(results) - 0.4, -0.6)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * (high / low) ** 0.5)
    plain_axis(axes.xaxis, low, high)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0)


def by_depth(report: Report, preset: str) -> dict[str, Line]:
    """Returns for each runner the depths and its speeds there, at its best number of threads."""
    setting = main_setting(report, preset)
    if setting is None:
        return {}
    depths = sorted({result.case.depth for result in measured(report) if result.case.preset == preset})
    points: dict[str, list[tuple[float, float]]] = {}
    for depth in depths:
        results = at_best_threads(report, preset, Setting(setting.batch, depth, setting.prompt_tokens))
        for runner, result in results.items():
            points.setdefault(runner, []).append((depth, speed(result)))
    return _lines(points)


def by_threads(report: Report, preset: str) -> dict[str, Line]:
    """Returns for each contender the numbers of threads and its speeds with them."""
    setting = main_setting(report, preset)
    points: dict[str, list[tuple[float, float]]] = {}
    same = [one for one in measured(report) if one.case.preset == preset and setting_of(one.case) == setting]
    for runner in (result.case.runner for result in with_speed(report, preset)):
        for threads in sorted({result.case.threads for result in same}):
            best = fastest(one for one in same if (one.case.runner, one.case.threads) == (runner, threads))
            if best is not None:
                points.setdefault(runner, []).append((threads, speed(best)))
    return _lines(points)


def _lines(points: dict[str, list[tuple[float, float]]]) -> dict[str, Line]:
    """Returns the x and y values of the runners that have at least two points."""
    return {
        runner: ([x for x, _ in found], [y for _, y in found]) for runner, found in points.items() if len(found) > 1
    }


def _apart(values: list[float]) -> list[float]:
    """Returns ascending values without those that are so near the value before that their labels would overlap."""
    kept = values[:1]
    for value in values[1:]:
        if value - kept[-1] > 0.08 * (values[-1] - values[0]):
            kept.append(value)
    return kept


def draw_lines(axes: Axes, lines: dict[str, Line]) -> None:
    """Draws a line for each runner, with room for its name at the right."""
    own = recommended(lines)
    for runner in reversed(in_order(lines)):
        x, y = lines[runner]
        width = 2.4 if runner == own else 1.4
        axes.plot(x, y, marker="o", markersize=4.5, linewidth=width, color=colour_of(runner, own))
    ticks = sorted({value for x, _ in lines.values() for value in x})
    low, high = ticks[0], ticks[-1]
    axes.set_xlim(low - 0.06 * (high - low), high + 0.75 * (high - low))
    axes.set_xticks(_apart(ticks))
    axes.set_yscale("log")
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom / 1.08, top * 1.08)
    plain_axis(axes.yaxis, bottom, top)
    axes.grid(axis="y")
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)


def label_lines(axes: Axes, lines: dict[str, Line]) -> None:
    """Writes the name of each runner at the end of its line."""
    own = recommended(lines)
    labels = [
        Label(x[-1], y[-1], title_of(runner), colour_of(runner, own), runner == own)
        for runner in in_order(lines)
        for x, y in [lines[runner]]
    ]
    place_at_ends(axes, labels)


def with_quality(report: Report, preset: str) -> list[Result]:
    """Returns the results whose quality is known, ours first."""
    found = main_results(report, preset)
    return [found[runner] for runner in in_order(found) if quality_increase(report, found[runner]) is not None]


def quality_points(report: Report, preset: str, by_size: bool) -> list[tuple[float, float, Result]]:
    """Returns the lost quality in percent, the speed or the megabytes, and the result of each point."""
    found = []
    for result in with_quality(report, preset):
        lost = max(0.0, 100 * (1 - 1 / (1 + (quality_increase(report, result) or 0))))
        value = (result.disk_bytes or 0) / 1e6 if by_size else speed(result)
        if value:
            found.append((lost, value, result))
    return found


def draw_quality(axes: Axes, report: Report, preset: str, by_size: bool) -> None:
    """Draws a point for each runner: the kept quality from left to right, the speed or the size upwards."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    points = quality_points(report, preset, by_size)
    own = recommended(result.case.runner for _, _, result in points)
    for lost, value, result in reversed(points):
        marker: dict[str, Any] = {"marker": "o" if family_of(result.case.runner) == SLMX else "D"}
        size = 9 if result.case.runner == own else 6
        axes.plot(
            [lost], [value], linestyle="none", markersize=size, color=colour_of(result.case.runner, own), **marker
        )
    axes.set_xscale("symlog", linthresh=0.1, linscale=0.5)
    most = max(lost for lost, _, _ in points)
    axes.set_xlim(max(most, 0.1) * 3, -0.6)
    ticks = [tick for tick in (0, 0.1, 0.3, 1, 3, 10, 30) if tick <= max(most, 0.1) * 2]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 - value:g}"))
    axes.set_yscale("log")
    low, high = min(value for _, value, _ in points), max(value for _, value, _ in points)
    axes.set_ylim(low / 1.3, high * 1.3)
    plain_axis(axes.yaxis, low / 1.3, high * 1.3)
    axes.grid(color=LINE.light)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)


def label_quality(axes: Axes, report: Report, preset: str, by_size: bool) -> None:
    """Writes the name of each point beside it."""
    points = quality_points(report, preset, by_size)
    own = recommended(result.case.runner for _, _, result in points)
    labels = [
        Label(lost, value, title_of(result.case.runner), colour_of(result.case.runner, own), result.case.runner == own)
        for lost, value, result in points
    ]
    place(axes, merged(axes, labels))
