"""The commands that measure: `slmx bench` and `slmx compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slm.errors import needs

INTERRUPTED = 130


def _names(text: str | None) -> tuple[str, ...] | None:
    """Names with commas between."""
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def bench(
    bundles: Annotated[list[Path] | None, typer.Argument(help="Bundles to measure as they are.")] = None,
    presets: Annotated[str | None, typer.Option(help="Model shapes, with commas; default: nano to medium.")] = None,
    variants: Annotated[str | None, typer.Option(help="Such as int8,fp32,torch eager; default: all.")] = None,
    threads: Annotated[str | None, typer.Option(help="Such as 1,2; default: one, and all cores.")] = None,
    peers: Annotated[str | None, typer.Option(help="Such as llama.cpp; default: all; none for none.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The essential in two minutes: nano, few cases.")] = False,
    text: Annotated[Path | None, typer.Option(help="Stories to judge quality on; default: the export's.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for reports, and for what is kept between runs.")] = Path(
        "runs/bench"
    ),
    rounds: Annotated[
        int | None, typer.Option(min=5, help="Of every case, in turn; default: 5, with --quick 15.")
    ] = None,
    against: Annotated[Path | None, typer.Option(help="report.json of an earlier run to compare with.")] = None,
    fail_over: Annotated[
        str | None, typer.Option(help="With --against: exit code 1 when a figure is worse by more, such as 10%.")
    ] = None,
) -> None:
    """Measure speed, memory and quality here: PyTorch, every variant, other runtimes; go on where it was stopped.

    Exit code 1 when a case failed or got worse than --fail-over allows, 130 after Ctrl-C, which keeps what there is.
    """
    import shlex
    import sys

    from slm.errors import SlmxError

    with needs("bench"):
        from benchmarks.report.compare import compare_reports, share
        from benchmarks.report.printers import print_report
        from benchmarks.report.record import FAILED, Report
        from benchmarks.report.write import write_reports
        from benchmarks.run.bench import QUICK_ROUNDS, ROUNDS, Bench, BenchSettings
        from benchmarks.run.progress import Meter

    if fail_over is not None and against is None:
        raise SlmxError("--fail-over needs --against, the report.json of an earlier run")
    limit = None if fail_over is None else share(fail_over)
    old = None if against is None else Report.read(against)
    settings = BenchSettings(
        out=out,
        bundles=tuple(bundles or ()),
        presets=_names(presets),
        variants=_names(variants),
        threads=threads,
        peers=_names(peers),
        quick=quick,
        text=text,
        rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
        command=shlex.join(["slmx", *(Path(word).name if "/" in word else word for word in sys.argv[1:])]),
    )
    interrupted = False
    with Meter() as meter:
        run = Bench(settings, meter)
        try:
            run.run()
        except KeyboardInterrupt:
            interrupted = True
    report = run.report()
    if interrupted:
        typer.echo("stopped; the same command goes on behind what is finished", err=True)
    if report.results:
        print_report(report)
        write_reports(report, out / "report", replace=True)
        typer.echo(str(out / "report"))
    worse = []
    if old is not None and report.results:
        comparison = compare_reports(old, report)
        for line in comparison.lines():
            typer.echo(line)
        worse = [] if limit is None else comparison.regressions(limit)
        for line in worse:
            typer.echo(f"regression over {fail_over}: {line}", err=True)
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if worse or any(result.status == FAILED for result in report.results):
        raise typer.Exit(1)


def compare(
    old: Annotated[Path, typer.Argument(help="The JSON of the earlier report.")],
    new: Annotated[Path, typer.Argument(help="The JSON of the later report.")],
    fail_over: Annotated[
        str, typer.Option(help="Exit with 1 if a figure got worse by more, beyond the noise.")
    ] = "10%",
) -> None:
    """Compare two reports of slmx bench case by case: what got faster or slower beyond the noise."""
    from benchmarks.report.compare import compare_reports, share
    from benchmarks.report.record import Report

    limit = share(fail_over)
    found = compare_reports(Report.read(old), Report.read(new))
    for line in found.lines():
        typer.echo(line)
    regressions = found.regressions(limit)
    for line in regressions:
        typer.echo(f"regression over {fail_over}: {line}", err=True)
    if regressions:
        raise typer.Exit(1)
