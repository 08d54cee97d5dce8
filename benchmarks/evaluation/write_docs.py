"""Writes the figures of the shipped models, docs/quality-figures.md and its pictures, from evaluations.

python -m benchmarks.evaluation.write_docs quality-nano quality-micro quality-small
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.evaluation.page.charts import RING, decision_charts
from benchmarks.evaluation.page.choice import points_of
from benchmarks.evaluation.run import RESULT, Evaluation, read_result
from benchmarks.evaluation.tables import tables
from benchmarks.program import run
from benchmarks.report.chart_style import GROUND, style_sheet, with_variables
from benchmarks.report.markdown import to_markdown
from slm.console.errors import SlmxError
from slm.console.markdown import as_markdown
from slm.storage.disk import write_file

PAGE = "quality-figures.md"
PICTURES = "quality"
FIRST = "\n## "  # begins the first model


def write_docs(found: Mapping[str, Evaluation], docs: Path) -> None:
    """Writes the tables of evaluations after the sentences of the page, and a picture of each.

    Args:
        found: The evaluations by the names of the models.
        docs: The folder of the documents. Its page keeps what stands before the first model.

    Raises:
        SlmxError: An evaluation has no loss of two variants, so there is nothing to draw.
    """
    start, _, _ = (docs / PAGE).read_text("utf-8").partition(FIRST)
    parts, pictures = [start.rstrip()], {}
    for name, evaluation in found.items():
        charts = decision_charts(points_of(evaluation.results, None))
        if not charts:
            raise SlmxError(f"{name}: no loss of two variants to draw; evaluate it with --variant all --suite loss")
        picture = f"{PICTURES}/{name}-size.svg"
        pictures[docs / picture] = f"{_picture(charts[0].svg)}\n".encode()
        parts += [
            f"## {as_markdown(name)}",
            f"![Bits per byte of each variant of {as_markdown(name)} against the size of its file]({picture})",
            to_markdown(tables(evaluation), level=3),
        ]
    for path, content in pictures.items():
        write_file(path, content)
    write_file(docs / PAGE, ("\n\n".join(parts) + "\n").encode())


def _picture(svg: str) -> str:
    """Returns a chart of the page as a file of its own, which has the colours of both themes and no rings."""
    light, dark = style_sheet("light"), style_sheet("dark")
    style = (
        f"svg {{ {light} {with_variables(f'background: {GROUND.light}')} }} "
        f"@media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }} "
        f'[id*="-{RING}-"] {{ visibility: hidden }}'
    )
    tag, end, rest = svg.partition(">")
    return f"{tag}{end}\n<style>{style}</style>{rest}"


def main(
    evaluations: Annotated[list[Path], typer.Argument(help="The --out of slmx evaluate, one for each model.")],
    docs: Annotated[Path, typer.Option(help="The folder of the documents.")] = Path("docs"),
) -> None:
    """Write the figures of the shipped models."""
    found = {}
    for folder in evaluations:
        evaluation = read_result(folder / RESULT, "evaluate the model again")
        found[Path(str(evaluation.settings["model"])).name] = evaluation
    write_docs(found, docs)


if __name__ == "__main__":
    run(main)
