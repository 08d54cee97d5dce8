"""The command `slmx evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slm.errors import UsageError, needs

if TYPE_CHECKING:
    from benchmarks.evaluation.reading import Advance


def evaluate(
    model: Annotated[str, typer.Argument(help="Folder of a checkpoint or of a run, or a bundle or its name.")],
    text: Annotated[
        list[str] | None,
        typer.Option("--text", "--data", help="Held-out stories, or a folder from slmx prepare; repeat for more."),
    ] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(help="loss, pairs, stories or novelty; repeat, or use commas. Default: loss, with --text."),
    ] = None,
    variant: Annotated[
        list[str] | None, typer.Option(help="Variant of a bundle, or all; repeat for more. Default: the bundle's.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Another model, or a variant of MODEL, to compare with on the same text.")
    ] = None,
    training: Annotated[
        list[str] | None, typer.Option(help="The stories of the training, for novelty and unknown words.")
    ] = None,
    count: Annotated[int, typer.Option(min=2, help="Beginnings of stories, for stories and novelty.")] = 100,
    words: Annotated[int, typer.Option(min=5, help="Words of each ending that are measured.")] = 60,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens to read for loss; default: all.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first story.")] = 1,
    language: Annotated[str, typer.Option(help="Figures that know English are left out for others.")] = "english",
    controls: Annotated[
        bool, typer.Option("--controls", help="Measure bad endings too: shuffled, repeated, copied, other names.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the result. The same command goes on with one that was stopped.")
    ] = None,
    bench: Annotated[
        Path | None, typer.Option(help="The report.json of slmx bench, for the speeds on the page in --out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure what a model is worth on stories, and what a variant costs, with intervals."""
    import json
    import shlex
    import sys
    from dataclasses import asdict

    from rich.console import Console

    from benchmarks.evaluation.markdown import to_markdown
    from benchmarks.evaluation.run import Settings
    from benchmarks.evaluation.run import evaluate as run
    from benchmarks.evaluation.tables import tables
    from benchmarks.evaluation.terminal import print_tables
    from benchmarks.report.fields import printable
    from benchmarks.report.reader import read_report
    from slm.locks import lock_folder

    suites = tuple(name.strip() for part in suite or () for name in part.split(",") if name.strip())
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
        language,
        controls,
    )
    if bench is not None and out is None:
        raise UsageError("--bench needs --out DIR, the folder of the page that shows the speeds")
    speeds = None if bench is None else read_report(bench)
    if out is not None:
        with needs("evaluate"):
            import jinja2  # noqa: F401  # what the page needs is missed before the models are measured
            import matplotlib  # noqa: F401

            from benchmarks.evaluation.write import write_reports
        out.mkdir(parents=True, exist_ok=True)
    with _Bars() as bars:
        if out is None:
            found = run(settings, None, bars.begin)
        else:
            with lock_folder(out):
                found = run(settings, out, bars.begin)
                write_reports(found, out, shlex.join(map(printable, ["slmx", *sys.argv[1:]])), speeds)
    if as_json:
        typer.echo(json.dumps(asdict(found), ensure_ascii=False))
    elif sys.stdout.isatty():
        print_tables(tables(found), Console())
    else:
        typer.echo(to_markdown(tables(found)))


class _Bars:
    """Progress on stderr: a bar on a terminal, a line for each part in a log."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._console = Console(stderr=True)
        self._bars = Progress(console=self._console, transient=True, disable=not self._console.is_terminal)

    def __enter__(self) -> _Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def begin(self, name: str, steps: int) -> Advance:
        """Shows a part of the work; returns what counts its steps."""
        if not self._console.is_terminal:
            self._console.print(name, soft_wrap=True, highlight=False, markup=False)
        task = self._bars.add_task(name, total=steps)
        return lambda count: self._bars.advance(task, count)
