"""`slmx compare`: did it get slower since the last report?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    old: Annotated[Path, typer.Argument(help="The JSON of the earlier report.")],
    new: Annotated[Path, typer.Argument(help="The JSON of the later report.")],
    fail_over: Annotated[
        str, typer.Option(help="Exit with 1 if a figure got worse by more, beyond the noise.")
    ] = "10%",
) -> None:
    """Compare two reports of slmx bench case by case: what got faster or slower beyond the noise."""
    from benchmarks.compare import compare_reports, share
    from benchmarks.record import Report

    limit = share(fail_over)
    found = compare_reports(Report.read(old), Report.read(new))
    for line in found.lines():
        typer.echo(line)
    regressions = found.regressions(limit)
    for line in regressions:
        typer.echo(f"regression over {fail_over}: {line}", err=True)
    if regressions:
        raise typer.Exit(1)
