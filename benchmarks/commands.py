"""The commands that measure: `slmx bench` and `slmx compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slm.errors import UsageError, needs

INTERRUPTED = 130
# A run that was stopped reports here, so that the report of a complete run stays.
PARTIAL_REPORT = "partial-report"


def _names(text: str | None) -> tuple[str, ...] | None:
    """Return the names in a text that commas separate; None without a text."""
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def bench(
    bundles: Annotated[list[Path] | None, typer.Argument(help="Bundles to measure.")] = None,
    presets: Annotated[str | None, typer.Option(help="Presets, separated by commas; default: nano to medium.")] = None,
    variants: Annotated[str | None, typer.Option(help="Variants, such as int8,fp32,torch eager; default: all.")] = None,
    threads: Annotated[str | None, typer.Option(help="Threads, such as 1,2; default: one, and all cores.")] = None,
    peers: Annotated[str | None, typer.Option(help="Runtimes, such as llama.cpp, or none; default: all.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few cases of nano: two minutes.")] = False,
    text: Annotated[Path | None, typer.Option(help="Stories to measure quality on; default: the export's.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the report and for the files that later runs reuse.")] = Path(
        "runs/bench"
    ),
    rounds: Annotated[
        int | None, typer.Option(min=5, help="Rounds of every case; default: 5, with --quick 15.")
    ] = None,
    against: Annotated[Path | None, typer.Option(help="The report.json of an earlier run, to compare with.")] = None,
    fail_over: Annotated[
        str | None, typer.Option(help="With --against: exit code 1 if a figure is worse by more, such as 10%.")
    ] = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Also measure TorchScript and .pt2 of BUNDLES. Reading them can run their code."),
    ] = False,
) -> None:
    """Measure speed, memory and quality on this machine: PyTorch, every variant, other runtimes.

    The same command continues a run that was stopped. The exit code is 1 if a case failed or became worse than
    --fail-over allows. It is 130 after Ctrl-C, which keeps the measurements.
    """
    import shlex
    import sys

    from runtimes.bundle.location import bundle_path
    from slm.atomic import remove_folder
    from slm.locks import lock_folder
    from slm.ownership import REPORT, check_only_ours, check_replaceable

    with needs("bench"):
        from benchmarks.report.compare import compare_reports, share
        from benchmarks.report.fields import printable
        from benchmarks.report.printers import print_report
        from benchmarks.report.reader import read_report
        from benchmarks.report.record import FAILED
        from benchmarks.report.write import write_reports
        from benchmarks.run.bench import QUICK_ROUNDS, RESUME_LOG, ROUNDS, WORK_FOLDER, Bench, BenchSettings
        from benchmarks.run.progress import Meter

    if fail_over is not None and against is None:
        raise UsageError("--fail-over needs --against, the report.json of an earlier run")
    limit = None if fail_over is None else share(fail_over)
    old = None if against is None else read_report(against)
    settings = BenchSettings(
        out=out,
        bundles=tuple(map(bundle_path, bundles or ())),
        presets=_names(presets),
        variants=_names(variants),
        threads=threads,
        peers=_names(peers),
        quick=quick,
        text=text,
        rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
        trust=trust,
        command=printable(shlex.join(["slmx", *(Path(word).name if "/" in word else word for word in sys.argv[1:])])),
    )
    check_only_ours(out, {"report", PARTIAL_REPORT, WORK_FOLDER, RESUME_LOG}, "slmx bench")
    for name in ("report", PARTIAL_REPORT):
        check_replaceable(out / name, REPORT, replace=True)
    interrupted = False
    with lock_folder(out):
        with Meter() as meter:
            run = Bench(settings, meter)
            try:
                run.run()
            except KeyboardInterrupt:
                interrupted = True
        report = run.report()
        folder = out / (PARTIAL_REPORT if interrupted else "report")
        if interrupted:
            typer.echo("stopped; the same command continues after what is finished", err=True)
        if report.results:
            print_report(report)
            write_reports(report, folder, replace=True)
            typer.echo(str(folder))
        if not interrupted:
            if (out / PARTIAL_REPORT).is_dir():
                remove_folder(out / PARTIAL_REPORT, REPORT)
            run.finish()
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
    old: Annotated[Path, typer.Argument(help="The report.json of the earlier run.")],
    new: Annotated[Path, typer.Argument(help="The report.json of the later run.")],
    fail_over: Annotated[
        str, typer.Option(help="Exit code 1 if a figure is worse by more than this and than the noise.")
    ] = "10%",
) -> None:
    """Compare two reports of slmx bench: which figures got better or worse by more than the noise."""
    from benchmarks.report.compare import compare_reports, share
    from benchmarks.report.reader import read_report

    limit = share(fail_over)
    found = compare_reports(read_report(old), read_report(new))
    for line in found.lines():
        typer.echo(line)
    regressions = found.regressions(limit)
    for line in regressions:
        typer.echo(f"regression over {fail_over}: {line}", err=True)
    if regressions:
        raise typer.Exit(1)
