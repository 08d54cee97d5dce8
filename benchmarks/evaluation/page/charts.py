"""The charts of the page: quality against size and speed, the loss by position, and what is new in the stories."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.evaluation.controls import CONTROLS
from benchmarks.evaluation.page.choice import MB, Measure, Point, by_size, by_speed, frontier, measures_of
from benchmarks.evaluation.run import TRUE
from benchmarks.evaluation.subject import PYTORCH
from benchmarks.report.chart_labels import Label, place
from benchmarks.report.chart_style import INK, LINE, QUIET, SETTINGS, SMALL, plain_axis, svg_text, with_variables
from benchmarks.report.families import PEER_FAMILIES, SLMX
from benchmarks.report.families import PYTORCH as PYTORCH_FAMILY
from benchmarks.report.fields import printable
from benchmarks.report.headline import in_a_list

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Drawing = Callable[["Axes"], None]
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (5, 1.5, 1.5, 1.5)))
HUMAN = (0, (2, 2))
WIDTH, HEIGHT = 4.2, 3.3  # inches
NARROWEST = 0.01  # the smallest height of a chart of quality, as a share of the quality: less cannot be told apart
MOST_NAME = 24  # characters
SHOWN_N = 4  # the n of the title of the chart of n-grams
# The ids of parts of the drawings, each before the number of a model. The script of the page finds them.
POINT, NAME, RING = "point", "name", "ring"


@dataclass(frozen=True)
class Chart:
    """A chart of the page.

    Attributes:
        title: What it shows.
        caption: How to read it.
        svg: The drawing.
        measure: The key of its measure of quality; empty if it has none.
    """

    title: str
    caption: str
    svg: str
    measure: str = ""


@dataclass(frozen=True)
class Curve:
    """A line of a chart: its name, and its values from left to right."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def colour_of(name: str, names: Sequence[str]) -> str:
    """Returns the colour of a model. The variants of one model have the same one, the true stories that of text.

    Args:
        name: The model, with its variant as the last word, or `true stories`.
        names: All models of the chart.
    """
    if name == TRUE:
        return INK.light
    model, _, variant = name.rpartition(" ")
    if variant == PYTORCH:
        return PYTORCH_FAMILY.colour.light
    families = (SLMX, *PEER_FAMILIES)
    models = list(dict.fromkeys(other.rpartition(" ")[0] for other in names if other != TRUE))
    return families[models.index(model) % len(families)].colour.light


def decision_charts(points: Sequence[Point]) -> list[Chart]:
    """Returns, for each measure of quality, the charts against the size and, if two speeds are known, the speed."""
    found = []
    for measure in measures_of(points):
        found.append(_decision(points, measure, False))
        if sum(point.speed is not None for point in points) > 1:
            found.append(_decision(points, measure, True))
    return found


def _decision(points: Sequence[Point], measure: Measure, fast: bool) -> Chart:
    numbered = {number: point for number, point in enumerate(points) if _x(point, fast)}
    shown = list(numbered.values())
    edge = frontier(shown, measure, by_speed if fast else by_size)
    if fast:
        where, cost, axis = "right", "as fast", "tokens/s, better \N{RIGHTWARDS ARROW}"
    else:
        where, cost, axis = "left", "as small", "\N{LEFTWARDS ARROW} better, MB of the model's file"
    title = f"On the frontier: {in_a_list([point.name for point in edge])}"
    if edge == shown:
        title = "Every model is on the frontier"
    caption = f"No other model is {cost} and as good as one on the frontier. The best are at the top {where}."
    names = [point.name for point in points]
    labels = [
        Label(
            _x(point, fast),
            point.quality[measure.key],
            _short(point.name),
            colour_of(point.name, names),
            point in edge,
        )
        for point in shown
    ]

    def draw(axes: Axes) -> None:
        low, high = min(label.x for label in labels) / 1.5, max(label.x for label in labels) * 1.5
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        plain_axis(axes.xaxis, low, high)
        line = sorted((label.x, label.y) for label in labels if label.strong)
        axes.plot([x for x, _ in line], [y for _, y in line], color=QUIET.light, linewidth=1, linestyle=(0, (4, 3)))
        for number, label in zip(numbered, labels, strict=True):
            where_it_is, inside = ([label.x], [label.y]), label.colour if label.strong else "none"
            axes.plot(*where_it_is, "o", color=INK.light, mfc="none", markersize=12, gid=f"{RING}-{number}")
            axes.plot(*where_it_is, "o", color=label.colour, mfc=inside, markersize=7, gid=f"{POINT}-{number}")
        axes.margins(y=0.15)
        heights = [label.y for label in labels]
        span = NARROWEST * max(map(abs, heights))
        if max(heights) - min(heights) < span:
            middle = (max(heights) + min(heights)) / 2
            axes.set_ylim(middle - span / 2, middle + span / 2)
        if measure.is_less:
            axes.invert_yaxis()
        _plain(axes, axis, f"{measure.title}, better \N{RIGHTWARDS ARROW}")

    def write(axes: Axes) -> None:
        place(axes, labels)
        for number, text in zip(numbered, axes.texts, strict=True):
            text.set_gid(f"{NAME}-{number}")

    return Chart(title, caption, _drawn(f"{measure.key}-{'speed' if fast else 'size'}", draw, write), measure.key)


def _x(point: Point, fast: bool) -> float:
    return (point.speed or 0.0) if fast else point.size / MB


def _short(name: str) -> str:
    """Returns a name with the room that a chart has; the variant at its end stays."""
    name = printable(name)
    return (
        name if len(name) <= MOST_NAME else f"{name[: MOST_NAME // 2]}\N{HORIZONTAL ELLIPSIS}{name[-MOST_NAME // 2 :]}"
    )


def _plain(axes: Axes, xlabel: str, ylabel: str) -> None:
    axes.grid(color=LINE.light)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)


def position_charts(results: Mapping[str, Any]) -> list[Chart]:
    """Returns the chart of the loss by position, if it was measured."""
    curves = [
        Curve(name, [(group["from"] * group["to"]) ** 0.5 for group in groups], [group["nats"] for group in groups])
        for name, suites in results.items()
        if (groups := suites.get("loss", {}).get("by position"))
    ]
    if not curves or len(curves[0].x) < 2:
        return []
    first = curves[0]
    title = f"{first.name}: {first.y[0]:.2f} nats for the first token of a window, {first.y[-1]:.2f} for the last ones"
    caption = "Nats per token after so many tokens of the window, smaller is better. Each point is the mean of a group."
    return [Chart(title, caption, _line_chart("position", curves, "tokens before", "nats per token", True))]


def novelty_charts(results: Mapping[str, Any]) -> list[Chart]:
    """Returns the chart of the new n-grams, if they were measured."""
    curves = []
    for name, suites in results.items():
        shares = suites.get("novelty", {}).get("new n-grams", {}) if name not in CONTROLS else {}
        known = {int(n): 100 * share["value"] for n, share in shares.items() if share["value"] is not None}
        if len(known) > 1:
            curves.append(Curve(name, list(known), list(known.values())))
    at_n = {curve.name: dict(zip(curve.x, curve.y, strict=True)).get(SHOWN_N) for curve in curves}
    named = dict.fromkeys([*list(at_n)[:1], TRUE])
    told = [f"{name} {value:.0f} %" for name in named if (value := at_n.get(name)) is not None]
    if not told:
        return []
    title = f"New sequences of {SHOWN_N} words: {in_a_list(told)}"
    caption = (
        "The share of sequences of n words and marks that the training text does not have. The dashed line is that of "
        "the true stories: a model that lies far below it copies."
    )
    return [
        Chart(title, caption, _line_chart("novelty", curves, "n, words and marks in a row", "new n-grams, %", False))
    ]


def _line_chart(name: str, curves: Sequence[Curve], xlabel: str, ylabel: str, doubles: bool) -> str:
    names = [curve.name for curve in curves]

    def draw(axes: Axes) -> None:
        for curve, dashes in zip(curves, _dashes(names), strict=True):
            colour, width = colour_of(curve.name, names), 2.2 if curve.name == TRUE else 1.5
            axes.plot(curve.x, curve.y, linestyle=dashes, label=_short(curve.name), color=colour, linewidth=width)
        low, high = min(min(curve.x) for curve in curves), max(max(curve.x) for curve in curves)
        if doubles:
            axes.set_xscale("log")
            plain_axis(axes.xaxis, low, high)
        else:
            axes.set_xticks([tick for tick in (1, 2, 4, 6, 8, 12, 16) if tick <= high])
        _plain(axes, xlabel, ylabel)
        axes.legend(loc="best", frameon=False, fontsize=SMALL, handlelength=3)

    return _drawn(name, draw, lambda axes: None)


def _dashes(names: Sequence[str]) -> list[Any]:
    """Returns how each line is drawn: dotted for the true stories, and differently for the variants of one model."""
    found: list[Any] = []
    for number, name in enumerate(names):
        same = [other for other in names[:number] if other.rpartition(" ")[0] == name.rpartition(" ")[0]]
        found.append(HUMAN if name == TRUE else DASHES[len(same) % len(DASHES)])
    return found


def _drawn(name: str, draw: Drawing, label: Drawing) -> str:
    """Returns a drawing as an SVG element whose colours are variables of the page. Labels need the final size."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({**SETTINGS, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        label(axes)
        return with_variables(svg_text(figure, name))
