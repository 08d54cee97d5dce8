"""The `slmx` command: each subcommand imports what it needs when it runs, so that --help is quick."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from slm import train_cli
from slm.errors import SlmxError, needs
from slm.presets import PRESETS

app = typer.Typer(
    name="slmx",
    help="Train small GPT story models and run them on edge machines.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

for command in (train_cli.prepare, train_cli.train, train_cli.average, train_cli.evaluate):
    app.command()(command)

BUNDLES = Path("bundles")


def _default_bundle() -> Path:
    """`bundles/nano` in the current folder if an export put one there, else the one inside the package."""
    from runtimes import PACKAGED_BUNDLE

    exported = BUNDLES / "nano"
    if (exported / "manifest.json").is_file():
        typer.echo(f"bundle: {exported}", err=True)
        return exported
    return PACKAGED_BUNDLE


def _print_variants(manifest: dict[str, Any]) -> None:
    from export.card import variant_rows

    row = "{:<8} {:>12}  {:<32} {}"
    typer.echo(row.format("variant", "bytes", "against PyTorch", "bits per byte"))
    for cells in variant_rows(manifest):
        typer.echo(row.format(*cells))


@app.command()
def export(
    preset: Annotated[str, typer.Option(help="Model shape; see slmx presets.")] = "nano",
    int8: Annotated[bool, typer.Option("--int8", help="Add the dynamic int8 variant.")] = False,
    checkpoint: Annotated[Path | None, typer.Option(help="Default: the one that ships with slmx.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the bundle; default: bundles/PRESET.")] = None,
    fp32: Annotated[bool, typer.Option(help="Keep the float32 variant in the bundle.")] = True,
    int8_recipe: Annotated[str | None, typer.Option(help="How to quantize; docs/int8.md compares them.")] = None,
    eval_text: Annotated[Path | None, typer.Option(help="Stories to judge on; default: the model's own.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there.")] = False,
) -> None:
    """Turn a checkpoint into a bundle of ONNX models, each judged against PyTorch."""
    with needs("export"):
        from export.exporter import ExportSettings, export_bundle
        from export.quantize import DEFAULT_RECIPE

    folder = out or BUNDLES / preset
    settings = ExportSettings(
        preset=preset,
        out=folder,
        checkpoint=checkpoint,
        fp32=fp32,
        int8=int8,
        int8_recipe=int8_recipe or DEFAULT_RECIPE,
        eval_text=eval_text,
        force=force,
    )
    manifest = export_bundle(settings, lambda line: typer.echo(line, err=True))
    typer.echo(str(folder))
    _print_variants(manifest)


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="How the story begins; none starts from nothing.")] = "",
    bundle: Annotated[Path | None, typer.Option(help="Default: bundles/nano here, else the shipped one.")] = None,
    variant: Annotated[str | None, typer.Option(help="int8 or fp32; default: the smallest there.")] = None,
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
def info(bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")]) -> None:
    """Check every file of a bundle and show what it holds."""
    from runtimes.bundle import Bundle

    opened = Bundle.open(bundle)
    manifest, c = opened.manifest, opened.config
    typer.echo(
        f"{manifest['preset']}: {c.parameters:,} parameters, {c.n_layer} layers, {c.n_head} heads, "
        f"{c.n_embd} channels, vocabulary {c.vocab_size}, context {c.block_size}"
    )
    _print_variants(manifest)
    typer.echo(f"judged on {manifest['judged_on']['tokens']:,} tokens: {manifest['judged_on']['text']}")
    typer.echo("made with " + ", ".join(f"{name} {number}" for name, number in manifest["versions"].items()))
    typer.echo(f"{len(manifest['files'])} files, every hash matches")


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
