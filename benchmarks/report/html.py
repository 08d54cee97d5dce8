"""A report as one HTML page that loads no other file: no script, no font and nothing from the network."""

from __future__ import annotations

from pathlib import Path

from benchmarks.report import claims
from benchmarks.report.charts import CHARTS, svg
from benchmarks.report.fields import full_table, machine_table, main_table, trouble_table
from benchmarks.report.leaderboard import verdict
from benchmarks.report.record import Report

TEMPLATE = Path(__file__).parent / "page.html.jinja"


def to_html(report: Report) -> str:
    """Return the page, the most important part first. Each chart is drawn twice, for light and for dark screens."""
    from jinja2 import Environment, StrictUndefined

    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    drawn = [chart for chart in CHARTS if chart.presets(report)]
    return template.from_string(TEMPLATE.read_text("utf-8")).render(
        report=report,
        verdict=verdict(report),
        main=main_table(report),
        literature=claims.literature_table(report),
        notes=claims.notes(report),
        charts=[(chart, {theme: svg(chart, report, theme) for theme in ("light", "dark")}) for chart in drawn],
        full=full_table(report),
        trouble=trouble_table(report),
        machine=machine_table(report),
    )
