"""The `slmx` command: each subcommand imports what it needs when it runs, so that --help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from slm.errors import SlmxError
from slm.presets import PRESETS

app = typer.Typer(
    name="slmx",
    help="Train small GPT story models and run them on edge machines.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def train(
    data: Annotated[list[Path], typer.Option(help="Text or .jsonl file with stories; repeat for more.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: gets best/ and last/.")],
    preset: Annotated[str, typer.Option(help="Model shape; see slmx presets.")] = "nano",
    valid: Annotated[Optional[list[Path]], typer.Option(help="Validation file; default: 5 % of the stories.")] = None,
    data_licence: Annotated[str, typer.Option(help="Licence of the data, for the training record.")] = "not stated",
    steps: Annotated[Optional[int], typer.Option(min=1, help="Batches; default: 20 tokens per parameter.")] = None,
    batch_size: Annotated[Optional[int], typer.Option(min=1, help="Sequences in a batch; default: the preset's.")] = None,
    learning_rate: Annotated[Optional[float], typer.Option(help="Peak; default: the preset's.")] = None,
    weight_decay: Annotated[float, typer.Option(min=0.0, help="On matrices only.")] = 0.1,
    dropout: Annotated[Optional[float], typer.Option(min=0.0, max=0.9, help="Default: the preset's.")] = None,
    grad_clip: Annotated[float, typer.Option(help="Largest norm of the gradient.")] = 1.0,
    eval_every: Annotated[int, typer.Option(min=1, help="Steps between validations and checkpoints.")] = 250,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, batches and dropout.")] = 1,
    compile: Annotated[bool, typer.Option(help="Use torch.compile where a C++ compiler is there.")] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
) -> None:
    """Train a preset on stories; Ctrl-C saves, --resume goes on."""
    from rich.console import Console

    from slm.train import TrainSettings
    from slm.train import train as run

    settings = TrainSettings(
        preset=preset,
        data=tuple(data),
        out=out,
        valid=tuple(valid or ()),
        licence=data_licence,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        dropout=dropout,
        grad_clip=grad_clip,
        eval_every=eval_every,
        seed=seed,
        compile=compile,
        resume=resume,
    )
    if not run(settings, Console(stderr=True)):
        typer.echo(f"stopped; {out / 'last'} is saved: the same command with --resume goes on", err=True)
        raise typer.Exit(130)
    typer.echo(str(out / "best"))


@app.command()
def presets() -> None:
    """List the model shapes, with their real parameter counts."""
    row = "{:<11} {:>5} {:>6} {:>6} {:>5} {:>5} {:>12} {:>14}"
    typer.echo(row.format("preset", "block", "vocab", "layers", "heads", "embd", "parameters", "non-embedding"))
    for preset in PRESETS.values():
        c = preset.config
        sizes = (c.block_size, c.vocab_size, c.n_layer, c.n_head, c.n_embd)
        typer.echo(row.format(preset.name, *sizes, f"{c.parameters:,}", f"{c.non_embedding_parameters:,}"))


def main() -> None:
    """Entry point: a foreseeable failure is one line on stderr and exit code 1."""
    try:
        app()
    except SlmxError as error:
        typer.echo(f"slmx: {error}", err=True)
        raise SystemExit(1) from None
