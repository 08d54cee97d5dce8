"""The data of the chart that decides: the size, the speed and the quality of each model, and which one is best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.evaluation.figures import interval
from benchmarks.evaluation.page.headline import BITS, as_written, models_of
from benchmarks.evaluation.subject import PYTORCH
from benchmarks.report.leaderboard import main_results, presets_of, speed
from benchmarks.report.record import TORCH_EAGER, Report

MB = 1e6
SAME_SIZE = 0.01  # two files of one variant that differ by a smaller share are of the same shape


@dataclass(frozen=True)
class Measure:
    """A measure of quality.

    Attributes:
        key: Its name in the page.
        title: Its name for people.
        is_less: Whether less of it is better.
        form: The form of its figures in Python.
        unit: The words after its figures, with the space before them.
        factor: The factor from the figures of an evaluation.
    """

    key: str
    title: str
    is_less: bool
    form: str
    unit: str
    factor: float = 1.0


LOSS = Measure("loss", BITS, True, ".4f", f" {BITS}")
PAIRS = Measure("pairs", "pairs that are right, %", False, ".1f", " % of the pairs", 100.0)
MEASURES = (LOSS, PAIRS)


@dataclass(frozen=True)
class Point:
    """A model in the chart.

    Attributes:
        name: The model.
        size: The size of its file in bytes.
        speed: Decoded tokens per second; None if it is unknown.
        quality: Its figures by the key of the measure.
        told: The same with their intervals, as text without a unit.
    """

    name: str
    size: int
    speed: float | None
    quality: Mapping[str, float]
    told: Mapping[str, str]


def points_of(results: Mapping[str, Any], bench: Report | None) -> list[Point]:
    """Returns the models of which a size and a quality are known."""
    found = []
    for name in models_of(results):
        suites = results[name]
        loss = suites.get("loss", {})
        figures = {
            LOSS: loss.get(as_written(loss).value, {}).get(BITS),
            PAIRS: suites.get("pairs", {}).get("all", {}).get("accuracy"),
        }
        known = {one: figure for one, figure in figures.items() if figure is not None and figure["value"] is not None}
        if known and "bytes" in suites:
            quality = {one.key: one.factor * figure["value"] for one, figure in known.items()}
            told = {one.key: interval(figure, one.form, one.factor) for one, figure in known.items()}
            found.append(Point(name, suites["bytes"], speed_of(name, suites["bytes"], bench), quality, told))
    return found


def speed_of(name: str, size: int, bench: Report | None) -> float | None:
    """Returns the speed of a model in a report of `slmx bench`; None if it does not have the model.

    It is that of the best number of threads under the report's main setting. A report names a model by its preset, so
    a model is found by its variant and the size of its file.

    Args:
        name: The model, with its variant as the last word.
        size: The size of its file in bytes.
        bench: The report.
    """
    variant = name.rpartition(" ")[2]
    runner = TORCH_EAGER if variant == PYTORCH else variant
    found = [] if bench is None else [main_results(bench, preset).get(runner) for preset in presets_of(bench)]
    near = {
        abs(result.disk_bytes / size - 1): speed(result)
        for result in found
        if result is not None and result.disk_bytes and abs(result.disk_bytes / size - 1) < SAME_SIZE
    }
    return near[min(near)] if near else None


def measures_of(points: Sequence[Point]) -> list[Measure]:
    """Returns the measures that every model has."""
    return [measure for measure in MEASURES if points and all(measure.key in point.quality for point in points)]


def by_size(point: Point) -> float:
    """Returns what must be small: the bytes."""
    return point.size


def by_speed(point: Point) -> float:
    """Returns what must be small: the tokens per second with a minus."""
    return -(point.speed or 0.0)


def frontier(points: Sequence[Point], measure: Measure, cost: Callable[[Point], float]) -> list[Point]:
    """Returns the models to which no other is at least equal in quality and cost, and better in one of them.

    Args:
        points: The models.
        measure: The measure of quality.
        cost: What must be small: `by_size` or `by_speed`.
    """
    places = [(_loss(point, measure), cost(point)) for point in points]
    return [
        point
        for point, (loss, own) in zip(points, places, strict=True)
        if not any(other != (loss, own) and other[0] <= loss and other[1] <= own for other in places)
    ]


def best(points: Sequence[Point], measure: Measure, most_bytes: float, least_speed: float) -> Point | None:
    """Returns the model of the best quality among those that qualify; of equal ones the smallest; None if none does.

    The script of the page has the same rule.

    Args:
        points: The models.
        measure: The measure of quality.
        most_bytes: The largest file that qualifies.
        least_speed: The fewest tokens per second. A model of unknown speed qualifies for 0 only.
    """
    fit = [point for point in points if point.size <= most_bytes and (point.speed or 0.0) >= least_speed]
    return min(fit, key=lambda point: (_loss(point, measure), point.size), default=None)


def _loss(point: Point, measure: Measure) -> float:
    value = point.quality[measure.key]
    return value if measure.is_less else -value
