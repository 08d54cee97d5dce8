"""The commands that look at this machine and at a bundle: `slmx doctor` and `slmx info`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from runtimes.bundle.location import BUNDLE_DEFAULT, BUNDLE_HELP, find_bundle
from slm.counted import counted


def doctor(
    bundle: Annotated[Path | None, typer.Option(help=BUNDLE_HELP, show_default=BUNDLE_DEFAULT)] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Print everything as one JSON line last, to send to others.")
    ] = False,
    pin: Annotated[
        bool, typer.Option("--pin", help="Let every command use the quickest way for this bundle from now on.")
    ] = False,
) -> None:
    """Describe this machine, and measure which variant is fastest.

    It shows processor, limits, memory, versions and known problems.
    """
    from runtimes.bundle.pin import Pin, write_pin
    from runtimes.bundle.store import Bundle
    from runtimes.bundle.variants import MOST_LOSS, VARIANTS
    from runtimes.checks.doctor import NOISE, Way, fatal_traps, limits, look, measure_ways, traps
    from runtimes.engine.exact_products import signed_is_exact
    from runtimes.engine.session import default_threads
    from runtimes.system.machine import describe_machine, this_cpu

    found = look()
    for name, value in describe_machine().items():
        typer.echo(f"{name:<12} {value}")
    typer.echo(f"{'limits':<12} {limits()}")
    typer.echo(f"{'memory':<12} {'unknown' if found.memory is None else f'{found.memory / 2**20:,.0f} MiB available'}")
    if found.board:
        typer.echo(f"{'board':<12} {found.board}")
    fatal = fatal_traps(found)
    for line in (*fatal, *traps(found)):
        typer.echo(f"{'trap':<12} {line}")
    if fatal:
        raise typer.Exit(1)
    kind = "signed in memory: their products are exact" if signed_is_exact() else "unsigned: signed ones would saturate"
    typer.echo(f"{'weights':<12} of int8 are {kind} on this processor")
    opened = Bundle.open(find_bundle(bundle))
    typer.echo(f"measuring {', '.join(opened.variants)} ({opened.manifest.preset})", err=True)
    started = time.perf_counter()
    measured = measure_ways(opened)
    seconds = time.perf_counter() - started
    for way, samples in measured.items():
        typer.echo(
            f"{way.variant:<12} {counted(way.threads, 'thread'):<10} "
            f"{1 / samples.median:>8,.0f} tokens/s +-{samples.spread:.0%}"
        )
    best = next((way for way in measured if VARIANTS[way.variant].may_be_default), next(iter(measured)))
    usual = Way(opened.variants[0], default_threads(len(opened.model_bytes(opened.variants[0]))))
    if usual in measured and measured[usual].median <= measured[best].median * (1 + NOISE):
        best = usual
    others = f", chosen for the target {opened.manifest.target} and the size" if best != usual else ""
    typer.echo(f"{'quickest':<12} {best}, of those that lose at most {MOST_LOSS:.0%}")
    typer.echo(f"{'default':<12} {usual}{others}")
    if pin:
        typer.echo(f"{'pinned':<12} {best}, in {write_pin(opened, Pin(best.variant, best.threads, this_cpu()))}")
    if report:
        from runtimes.checks.report import report_row

        typer.echo(json.dumps(report_row(found, opened, measured, seconds), ensure_ascii=False))


def info(bundle: Annotated[Path | None, typer.Argument(help=BUNDLE_HELP, show_default=BUNDLE_DEFAULT)] = None) -> None:
    """Show what a bundle holds, after a check of every file."""
    from runtimes.bundle.store import Bundle
    from runtimes.bundle.summary import judged_line, variant_lines

    opened = Bundle.open(find_bundle(bundle))
    opened.check_all()
    manifest, c = opened.manifest, opened.config
    typer.echo(
        f"{manifest.preset}: a {c.family} of {c.parameters:,} parameters, "
        f"{counted(c.n_layer, 'layer')}, {counted(c.n_head, 'head')}, "
        f"{counted(c.n_embd, 'channel')}, vocabulary {c.vocab_size:,}, context {c.block_size:,}"
    )
    typer.echo(f"source: {manifest.checkpoint.source or 'not recorded'}")
    typer.echo(f"licence of the source: {manifest.checkpoint.licence or 'not stated'}")
    for line in variant_lines(manifest):
        typer.echo(line)
    typer.echo(f"default for {manifest.target}: {manifest.default}")
    typer.echo(judged_line(manifest.judged_on))
    typer.echo("made with " + ", ".join(f"{name} {number}" for name, number in manifest.versions.items()))
    typer.echo(f"{counted(len(manifest.files), 'file')}, every hash matches")
    typer.echo(f"manifest SHA-256 {opened.manifest_sha256}")
