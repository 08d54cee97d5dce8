"""The command `slmx evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.evaluation import SUITES
from slm.errors import UsageError
from slm.usage import panel, some_of

if TYPE_CHECKING:
    from benchmarks.evaluation.reading import Advance

REPORT = "evaluation.md"


_stories, _output = panel("Stories"), panel("Output")


def evaluate(
    model: Annotated[str, typer.Argument(help="Folder of a checkpoint or of a run, or a bundle or its name.")],
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
    as_json: Annotated[bool, _output("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure what a model is worth and what a variant costs.

    docs/quality.md explains the figures. Each has an interval.
    """
    import json
    from dataclasses import asdict

    from benchmarks.evaluation.run import Settings, finite
    from benchmarks.evaluation.run import evaluate as run
    from benchmarks.evaluation.tables import tables
    from slm.disk import write_file
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
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    with _Bars() as bars:
        if out is None:
            found = run(settings, None, bars.begin)
        else:
            with lock_folder(out):
                found = run(settings, out, bars.begin)
                write_file(out / REPORT, f"# {model}\n\n{tables(found)}\n".encode())
    typer.echo(json.dumps(finite(asdict(found)), ensure_ascii=False) if as_json else tables(found))


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
