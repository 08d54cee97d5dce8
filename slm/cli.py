"""The `slmx` command: each subcommand imports what it needs when it runs, so that --help is quick."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from slm import export_cli, train_cli
from slm.errors import SlmxError
from slm.presets import PRESETS

app = typer.Typer(
    name="slmx",
    help="Train small GPT story models and run them on edge machines.",
    no_args_is_help=True,
    add_completion=False,
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


def _default_bundle() -> Path:
    """`bundles/nano` in the current folder if an export put one there, else the one inside the package."""
    from runtimes import BUNDLES, PACKAGED_BUNDLE

    exported = BUNDLES / "nano"
    if (exported / "manifest.json").is_file():
        typer.echo(f"bundle: {exported}", err=True)
        return exported
    return PACKAGED_BUNDLE


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="How the story begins; none starts from nothing.")] = "",
    bundle: Annotated[Path | None, typer.Option(help="Default: bundles/nano here, else the shipped one.")] = None,
    variant: Annotated[str | None, typer.Option(help="Default: the one for the bundle's target.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Default: until the story or the context ends.")] = None,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Keep the k likeliest tokens; 0 is off.")] = 40,
    top_p: Annotated[float, typer.Option(help="Keep the likeliest tokens up to this mass; 1 is off.")] = 0.95,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1 shuns tokens seen before.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Same seed, same story; default: a new one.")] = None,
    threads: Annotated[int | None, typer.Option(help="Default: by model size.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Write a story with onnxruntime; text goes to stdout as it comes."""
    from runtimes.bundle import Bundle
    from runtimes.generator import Generator
    from runtimes.sampler import Sampling

    sampling = Sampling(temperature, top_k, top_p, repetition_penalty, seed)
    folder = _default_bundle() if bundle is None else bundle
    generator = Generator(Bundle.open(folder), variant, threads)
    stream = generator.stream(prompt, max_tokens, sampling)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    pieces = [prompt]
    if not as_json:
        typer.echo(prompt, nl=False)
    try:
        for piece in stream:
            pieces.append(piece)
            if not as_json:
                sys.stdout.write(piece)
                sys.stdout.flush()
    except KeyboardInterrupt:
        pass
    summary = stream.summary
    if as_json:
        record = asdict(summary) | {"tokens_per_second": round(summary.tokens_per_second, 1)}
        whole = {"prompt": prompt, "text": "".join(pieces), "ids": stream.ids, "variant": generator.variant}
        typer.echo(json.dumps(whole | {"bundle": str(folder)} | record, ensure_ascii=False))
    else:
        typer.echo()
    typer.echo(
        f"{summary.tokens} tokens, {summary.tokens_per_second:,.0f} tokens/s, "
        f"{1000 * summary.time_to_first_token:.1f} ms to the first, stopped by {summary.stop} "
        f"({generator.variant}, seed {summary.seed}, {generator.session.threads} thread(s))",
        err=True,
    )
    if stream.stop == "interrupted":
        raise typer.Exit(130)


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
