"""The commands that measure: `slmx bench` and `slmx compare`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slm.console.errors import UsageError, needs, require
from slm.console.usage import NAMES, complete_last, names_of, panel, some_of
from slm.presets import PRESETS

if TYPE_CHECKING:
    from benchmarks.report.compare import Comparison
    from benchmarks.report.record import Report
    from benchmarks.run.settings import BenchSettings

INTERRUPTED = 130
# A run that was stopped reports here, so that the report of a complete run stays.


def _names(text: str | None) -> tuple[str, ...] | None:
    """Returns the names in a text that commas separate; None without a text."""
    return None if text is None else names_of(text)


def _without_folders(word: str) -> str:
    """Returns a word of the command line without the folders of its path: `--text=valid.txt`."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{equals}{Path(value).name if '/' in value else value}"


_measured, _comparison, _rare = panel("What is measured"), panel("Comparison"), panel("Rare")


def _complete_peers(incomplete: str) -> list[str]:
    """Completes the last of the peers that commas separate."""
    from benchmarks.peers.registry import NO_PEERS, RUNTIMES

    return complete_last((*RUNTIMES, NO_PEERS), incomplete)


def _complete_variants(incomplete: str) -> list[str]:
    """Completes the last of the variants that commas separate."""
    from benchmarks.run.cases import RUNNERS

    return complete_last(RUNNERS, incomplete)


def bench(
    bundles: Annotated[list[Path] | None, typer.Argument(metavar="BUNDLE...", help="Bundles to measure.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few cases of nano: two minutes.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the report and for the files that later runs reuse.")] = Path(
        "runs/bench"
    ),
    text: Annotated[
        Path | None, typer.Option(help="Stories to measure quality on.", show_default="the export's")
    ] = None,
    presets: Annotated[
        str | None,
        _measured(**some_of("preset", list(PRESETS), "Presets."), show_default="nano to medium"),
    ] = None,
    variants: Annotated[
        str | None,
        _measured(
            metavar=NAMES,
            autocompletion=_complete_variants,
            help="Variants of a bundle, torch eager and torch compiled.",
            show_default="all",
        ),
    ] = None,
    peers: Annotated[
        str | None,
        _measured(
            metavar=NAMES,
            autocompletion=_complete_peers,
            help="Runtimes: llama.cpp, optimum, onnxruntime-genai, CTranslate2, OpenVINO, Hugging Face; or none.",
            show_default="all",
        ),
    ] = None,
    threads: Annotated[str | None, _measured(help="Threads, such as 1,2.", show_default="one, and all cores")] = None,
    against: Annotated[Path | None, _comparison(help="The report of an earlier run, to compare with.")] = None,
    fail_over: Annotated[
        str | None, _comparison(help="With --against: exit code 1 if a figure is worse by more, such as 10%.")
    ] = None,
    rounds: Annotated[int | None, _rare(min=5, help="Rounds of every case.", show_default="5, with --quick 15")] = None,
    trust: Annotated[
        bool,
        _rare("--trust", help="Also measure TorchScript and .pt2 of the bundles. Reading them can run their code."),
    ] = False,
) -> None:
    """Measure speed, memory and quality on this machine.

    PyTorch, every variant and other runtimes are measured. The same command continues a run that was stopped.

    The exit code is 1 if a case failed or became worse than --fail-over allows.
    It is 130 after Ctrl-C, which keeps the measurements.
    """
    import sys

    from runtimes.bundle.location import find_bundle

    require("bench", "jinja2", "matplotlib", "sacrebleu")
    with needs("bench"):
        from benchmarks.report.compare import compare_reports, share
        from benchmarks.report.fields import printable
        from benchmarks.report.reader import read_report
        from benchmarks.report.record import FAILED
        from benchmarks.report.warnings import STOPPED
        from benchmarks.run.settings import QUICK_ROUNDS, ROUNDS, BenchSettings

    if fail_over is not None and against is None:
        raise UsageError("--fail-over needs --against, the report of an earlier run")
    limit = None if fail_over is None else share(fail_over)
    old = None if against is None else read_report(against)
    settings = BenchSettings(
        out=out,
        bundles=tuple(map(find_bundle, bundles or ())),
        presets=_names(presets),
        variants=_names(variants),
        threads=threads,
        peers=_names(peers),
        quick=quick,
        text=text,
        rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
        trust=trust,
        command=printable(shlex.join(["slmx", *map(_without_folders, sys.argv[1:])])),
    )
    report = _run(settings)
    worse: list[str] = []
    if old is not None and report.results:
        worse = _tell(compare_reports(old, report), fail_over, limit)
    if STOPPED in report.warnings:
        raise typer.Exit(INTERRUPTED)
    if worse or any(result.status == FAILED for result in report.results):
        raise typer.Exit(1)


def _run(settings: BenchSettings) -> Report:
    """Measures, and prints and writes the report, also of a run that Ctrl-C has stopped."""
    from benchmarks.report.printers import print_report
    from benchmarks.report.reader import PARTIAL_REPORT
    from benchmarks.report.write import REPORT_LISTING, write_reports
    from benchmarks.run.bench import RESUME_LOG, WORK_FOLDER, Bench
    from benchmarks.run.progress import Meter
    from slm.folder_kind import check_outside
    from slm.storage.atomic import remove_folder
    from slm.storage.disk import check_creatable
    from slm.storage.locks import lock_folder
    from slm.storage.ownership import check_only_ours, check_replaceable

    out = settings.out
    check_outside(out)
    check_only_ours(out, {"report", PARTIAL_REPORT, WORK_FOLDER, RESUME_LOG}, "slmx bench")
    for name in ("report", PARTIAL_REPORT):
        if check_replaceable(out / name, REPORT_LISTING, replace=True):
            check_creatable(out / name / REPORT_LISTING.file)  # before the measurements, which can take hours
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
            write_reports(report, folder)
            typer.echo(str(folder))
            if not interrupted:
                now = f"now: open {folder / 'report.html'} in a browser, or compare it with slmx compare OLD"
                typer.echo(f"{now} {shlex.quote(str(folder))}", err=True)
        if not interrupted:
            if (out / PARTIAL_REPORT).is_dir():
                remove_folder(out / PARTIAL_REPORT, REPORT_LISTING)
            run.finish()
    return report


def _tell(found: Comparison, fail_over: str | None, limit: float | None) -> list[str]:
    """Prints a comparison, and returns what became worse by more than the limit; nothing without one."""
    for line in found.lines():
        typer.echo(line)
    worse = [] if limit is None else found.regressions(limit)
    for line in worse:
        typer.echo(f"regression over {fail_over}: {line}", err=True)
    return worse


def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The report of the earlier run: folder or report.json.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The report of the later run.")],
    fail_over: Annotated[
        str, typer.Option(help="Exit code 1 if a figure is worse by more than this and than the noise.")
    ] = "10%",
) -> None:
    """Compare two reports of slmx bench.

    It shows which figures got better or worse by more than the noise.
    """
    from benchmarks.report.compare import compare_reports, share
    from benchmarks.report.reader import read_report

    limit = share(fail_over)
    if _tell(compare_reports(read_report(old), read_report(new)), fail_over, limit):
        raise typer.Exit(1)
