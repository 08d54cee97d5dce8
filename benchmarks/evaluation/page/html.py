"""An evaluation as one HTML page that loads no other file. Its script chooses models; without it all can be read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.evaluation.page.charts import decision_charts, novelty_charts, position_charts
from benchmarks.evaluation.page.choice import MB, Measure, Point, best, measures_of, points_of
from benchmarks.evaluation.page.headline import headline
from benchmarks.evaluation.page.stories import rows_of
from benchmarks.evaluation.reading import Way
from benchmarks.evaluation.run import TRUE, Evaluation
from benchmarks.evaluation.tables import tables
from benchmarks.report.fields import three_figures
from benchmarks.report.headline import caveats
from benchmarks.report.html import style
from benchmarks.report.parts import facts as machine_facts
from benchmarks.report.record import Report
from benchmarks.report.table import UNKNOWN, Table
from benchmarks.report.template import filled

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Limit:
    """A field of the page, for the largest size or the least speed.

    Attributes:
        key: Its name in the page.
        words: The words before it.
        unit: Its unit.
        low: Its least value.
        high: Its largest value.
        step: The step of its slider.
        value: Its value at first, with which every model qualifies.
    """

    key: str
    words: str
    unit: str
    low: float
    high: float
    step: float
    value: float


def to_html(found: Evaluation, command: str, bench: Report | None = None) -> str:
    """Returns the page.

    Args:
        found: The evaluation.
        command: The command that made it.
        bench: A report of `slmx bench` with the speeds of the models.
    """
    points = points_of(found.results, bench)
    measures = measures_of(points) if len(points) > 1 else []
    rows = rows_of(found.endings)
    return filled(
        HERE / "page.html.jinja",
        headline=headline(found),
        facts=facts(found),
        command=command,
        measures=measures,
        models=[model_data(point, measures) for point in points],
        choice=choice_table(points, measures),
        first_best=result_words(points, measures[0]) if measures else "",
        limits=limits_of(points),
        has_speeds=any(point.speed for point in points),
        machine=None if bench is None else machine_facts(bench),
        caveats=[] if bench is None else caveats(bench),
        decisions=decision_charts(points) if measures else [],
        curves=[*position_charts(found.results), *novelty_charts(found.results)],
        tables=tables(found),
        rows=rows,
        left_out=len(next(iter(found.endings.values()), [])) - len(rows) if rows else 0,
        identity=identity(found.settings),
        style=style() + (HERE / "page.css").read_text("utf-8"),
        script=(HERE / "page.js").read_text("utf-8"),
    )


def facts(found: Evaluation) -> list[str]:
    """Returns what was read and written, in a few words each."""
    settings = found.settings
    told = [f"model {settings['model']}"]
    if settings["text"]:
        told.append("text " + ", ".join(Path(source).name for source in settings["text"]))
    tokens = [
        suites["loss"][Way.WINDOWS.value]["tokens"]
        for suites in found.results.values()
        if Way.WINDOWS.value in suites.get("loss", {})
    ]
    if tokens:
        told.append(f"{max(tokens):,} tokens read")
    if TRUE in found.endings:
        told.append(f"{len(found.endings[TRUE]):,} beginnings of stories")
    return [*told, f"seed {settings['seed']}"]


def identity(settings: Mapping[str, Any]) -> Table:
    """Returns the table of the hashes of the models and the text."""
    rows = [(name, sha256) for name, sha256 in settings["hashes"].items()]
    if settings["text hash"] is not None:
        rows.append(("text", settings["text hash"]))
    return Table(("file", "SHA-256"), tuple(rows), heading="Models and text")


def choice_table(points: Sequence[Point], measures: Sequence[Measure]) -> Table:
    """Returns the table of the models that can be chosen."""
    fast = any(point.speed for point in points)
    columns = ("model", "MB", *(["tokens/s"] if fast else []), *(measure.title for measure in measures))
    rows = []
    for point in points:
        speed = [UNKNOWN if point.speed is None else three_figures(point.speed)] if fast else []
        quality = [point.told[measure.key] for measure in measures]
        rows.append((point.name, f"{point.size / MB:.2f}", *speed, *quality))
    return Table(columns, tuple(rows), heading="Choose a model")


def model_data(point: Point, measures: Sequence[Measure]) -> dict[str, Any]:
    """Returns what the script knows of a model. Of each measure of quality, less is better."""
    return {
        "size": point.size,
        "speed": point.speed or 0,
        "loss": {one.key: point.quality[one.key] * (1 if one.is_less else -1) for one in measures},
        "told": {one.key: point_words(point, one) for one in measures},
    }


def point_words(point: Point, measure: Measure) -> str:
    """Returns a model with its figures in a few words."""
    speed = "" if point.speed is None else f", {three_figures(point.speed)} tokens/s"
    return f"{point.name}: {point.told[measure.key]}{measure.unit}, {point.size / MB:.2f} MB{speed}"


def result_words(
    points: Sequence[Point], measure: Measure, most_bytes: float = float("inf"), least_speed: float = 0.0
) -> str:
    """Returns how many models qualify and which has the best figure. The script of the page says the same.

    Args:
        points: The models.
        measure: The measure of quality.
        most_bytes: The largest file that qualifies.
        least_speed: The fewest tokens per second.
    """
    first = best(points, measure, most_bytes, least_speed)
    count = sum(best([point], measure, most_bytes, least_speed) is not None for point in points)
    told = f"{count} of {len(points)} models qualify."
    return told if first is None else f"{told} The best figure is that of {point_words(first, measure)}."


def limits_of(points: Sequence[Point]) -> list[Limit]:
    """Returns the fields for the size and, if any speed is known, for the speed."""
    if not points:
        return []
    sizes, fastest = [point.size / MB for point in points], max(point.speed or 0.0 for point in points)
    step = _step(max(sizes))
    low, high = round(math.floor(min(sizes) / step) * step, 6), round(math.ceil(max(sizes) / step) * step, 6)
    found = [Limit("size", "at most", "MB", low, high, step, high)]
    if fastest:
        step = _step(fastest)
        found.append(Limit("speed", "at least", "tokens/s", 0, round(math.ceil(fastest / step) * step, 6), step, 0))
    return found


def _step(value: float) -> float:
    """Returns the step of a slider up to a value: a power of ten, for 100 to 1,000 steps."""
    return 10.0 ** (math.floor(math.log10(value)) - 2)
