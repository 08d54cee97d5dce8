"""The command `slmx evaluate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.evaluation import SUITES
from slm.console.errors import UsageError, needs, require
from slm.console.usage import names_of, panel, some_of

if TYPE_CHECKING:
    from benchmarks.evaluation.judge.suite import Cost

_stories, _output, _judge = panel("Stories"), panel("Output"), panel("Judges and people")


def evaluate(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Folder of a checkpoint or of a run, or a bundle or its name.")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="Held-out stories, or a folder from slmx prepare; repeat for more.")
    ] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(**some_of("suite", SUITES, "What is measured."), show_default="loss"),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(help="Variant of a bundle, or all; repeat for more.", show_default="the bundle's"),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Another model, or a variant of MODEL, to compare with on the same text.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Most tokens to read for the suite loss.", show_default="all")
    ] = None,
    count: Annotated[int, _stories(min=2, help="Beginnings of stories.")] = 100,
    words: Annotated[int, _stories(min=5, help="Words of each ending that are measured.")] = 60,
    seed: Annotated[int, _stories(min=0, help="Seed of the first story.")] = 1,
    training: Annotated[
        list[str] | None, _stories(help="The stories of the training, for novelty and unknown words.")
    ] = None,
    language: Annotated[str, _stories(help="Figures that know English are left out for others.")] = "english",
    controls: Annotated[
        bool, _stories("--controls", help="Measure bad endings too: shuffled, repeated, copied, other names.")
    ] = False,
    out: Annotated[
        Path | None, _output(help="Folder for the result. The same command goes on with one that was stopped.")
    ] = None,
    judge_url: Annotated[
        str | None, _judge(help="An OpenAI-compatible API for the suite judge, such as http://127.0.0.1:8000/v1.")
    ] = None,
    judge_model: Annotated[str | None, _judge(help="The name of the judge there.")] = None,
    judge_key_env: Annotated[str, _judge(metavar="NAME", help="Variable with its key.")] = "OPENAI_API_KEY",
    judge_price: Annotated[
        str | None, _judge(metavar="IN,OUT", help="Prices of a million tokens, for the estimate of the cost.")
    ] = None,
    yes: Annotated[bool, _judge("--yes", help="Ask the judge without asking you first.")] = False,
    scorer: Annotated[
        Path | None, _judge(help="An outside model that reads the endings: a GGUF file or a Hugging Face folder.")
    ] = None,
    rating_sheet: Annotated[
        Path | None, _judge(help="Write a blind page for people: the endings of MODEL beside others.")
    ] = None,
    ratings: Annotated[
        list[Path] | None, _judge(help="Read what people saved there, with --out alone; repeat for more.")
    ] = None,
    bench: Annotated[
        Path | None, _output(help="The report of slmx bench, for the speeds on the page in --out.")
    ] = None,
    as_json: Annotated[bool, _output("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure what a model is worth and what a variant costs.

    docs/quality.md explains the figures. Most have an interval.
    """
    import json
    import shlex
    from contextlib import nullcontext
    from dataclasses import asdict

    from rich.console import Console

    from benchmarks.evaluation.outside import outside, with_endings
    from benchmarks.evaluation.rating.read_back import read_back
    from benchmarks.evaluation.run import ENGLISH, PAGE, Settings, left_out
    from benchmarks.evaluation.run import evaluate as run
    from benchmarks.evaluation.tables import tables
    from benchmarks.report.fields import printable
    from benchmarks.report.markdown import to_markdown
    from benchmarks.report.reader import read_report
    from benchmarks.report.terminal import print_tables
    from runtimes.bundle.location import bundle_notice
    from slm.folder_kind import check_outside
    from slm.storage.disk import make_folder
    from slm.storage.locks import lock_folder

    suites = tuple(name for part in suite or () for name in names_of(part))
    if ratings:
        if text or suite or variant or against or training or scorer or rating_sheet or bench or judge_url:
            raise UsageError("--ratings reads what people saved: give --out, and no option of a measurement")
        typer.echo(read_back(ratings, model, out, as_json))
        return
    if model is None:
        raise UsageError("MODEL is missing: give a checkpoint, a run, a bundle, or a name from slmx list")
    suites = with_endings(suites, rating_sheet, scorer)
    if not suites:
        if not text:
            raise UsageError("--text FILE is needed, stories to read; or --suite pairs, which needs no text")
        suites = ("loss",)
    settings = Settings(
        model,
        tuple(variant or ()),
        against,
        tuple(text or ()),
        tuple(training or ()),
        suites,
        count,
        words,
        max_tokens,
        seed,
        ENGLISH if language.casefold() in ("en", ENGLISH) else language,
        controls,
    )
    if "stories" in suites:
        require("evaluate", "sacrebleu")
    readers = outside(suites, out, judge_url, judge_model, judge_key_env, judge_price, rating_sheet, scorer)
    if bench is not None and out is None:
        raise UsageError("--bench needs --out DIR, the folder of the page that shows the speeds")
    speeds = None if bench is None else read_report(bench)
    if out is not None:
        require("evaluate", "jinja2", "matplotlib")
        from benchmarks.evaluation.write import write_reports

        check_outside(out)
    for named in (model, against):
        if named is not None and (notice := bundle_notice(Path(named))):
            typer.echo(notice, err=True)
    if (line := left_out(settings)) is not None:
        typer.echo(line, err=True)
    with needs("evaluate"):
        from benchmarks.evaluation.progress import Bars
    with nullcontext() if out is None else lock_folder(out):
        if out is not None:
            make_folder(out)
        with Bars() as bars:
            found = run(settings, out, bars.begin)
        command = shlex.join(map(printable, ["slmx", *sys.argv[1:]]))
        if out is not None:  # before others read the endings, which can fail
            write_reports(found, out, command, speeds)
        if readers.asked:
            readers.read(found, out, Bars, lambda cost: _agree(cost, yes))
            if out is not None:
                write_reports(found, out, command, speeds)
    if out is not None:
        typer.echo(f"the page: {out / PAGE}", err=True)
    if rating_sheet is not None:
        typer.echo(f"{rating_sheet}: give this page to people; the key to its endings stays in {out}", err=True)
    if as_json:
        typer.echo(json.dumps(asdict(found), ensure_ascii=False))
    elif sys.stdout is not None and sys.stdout.isatty():
        print_tables(tables(found), Console())
    else:
        typer.echo(to_markdown(tables(found)))


def _agree(cost: Cost, yes: bool) -> None:
    """Shows what the judge costs, and asks whether that is wanted."""
    typer.echo(f"the judge: {cost}", err=True)
    if not yes:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError("nothing was asked: add --yes, because there is no terminal to ask you on")
        typer.confirm("Go on?", abort=True, err=True)
