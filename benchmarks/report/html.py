"""A report as one HTML page that loads no other file: no script, no font and nothing from the network."""

from __future__ import annotations

from pathlib import Path

from benchmarks.report.chart_style import style_sheet
from benchmarks.report.charts import CHARTS, panel
from benchmarks.report.headline import caveats, headlines, opening
from benchmarks.report.parts import END, facts, folded_parts
from benchmarks.report.record import Report
from benchmarks.report.tables import main_table
from benchmarks.report.template import filled

TEMPLATE = Path(__file__).parent / "page.html.jinja"
STYLE = Path(__file__).parent / "page.css"


def style() -> str:
    """Returns the style sheet of a page, with the colours of charts in both themes."""
    light, dark = style_sheet("light"), style_sheet("dark")
    charts = f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
    return STYLE.read_text("utf-8") + charts


def to_html(report: Report) -> str:
    """Returns the page: the sentence and its picture, the table, the charts, and the folded parts."""
    figures = []
    for chart in CHARTS:
        presets = chart.presets(report)
        if presets:
            title = chart.title(report, presets)
            figures.append((title, chart.caption, [panel(chart, report, preset) for preset in presets]))
    return filled(
        TEMPLATE,
        report=report,
        facts=facts(report),
        headlines=headlines(report),
        opening=opening(report),
        caveats=caveats(report),
        main=main_table(report),
        figures=figures,
        parts=folded_parts(report),
        end=END,
        style=style(),
    )
