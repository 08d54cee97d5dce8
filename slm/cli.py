"""The `slmx` command: each subcommand imports what it needs when it runs, so that --help is quick."""

from __future__ import annotations

import typer

from slm import bench_cli, compare_cli, doctor_cli, export_cli, generate_cli, train_cli
from slm.errors import SlmxError
from slm.presets import PRESETS

app = typer.Typer(
    name="slmx",
    help="Train small GPT story models and run them on edge machines.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

app.command()(train_cli.prepare)
app.command()(train_cli.train)
app.command()(train_cli.average)
app.command()(train_cli.evaluate)
app.command("import")(export_cli.import_model)
app.command()(export_cli.export)
app.command()(export_cli.verify)
app.command()(export_cli.info)
app.command()(generate_cli.generate)
app.command()(doctor_cli.doctor)
app.command()(bench_cli.bench)
app.command()(compare_cli.compare)


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
    except OSError as error:
        if error.strerror is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        typer.echo(f"slmx: {where}{error.strerror}", err=True)
        raise SystemExit(1) from None
