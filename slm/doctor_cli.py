"""`slmx doctor`: is this machine ready, and what runs best on it?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slm.generate_cli import default_bundle


def doctor(
    bundle: Annotated[Path | None, typer.Option(help="Default: bundles/nano here, else the shipped one.")] = None,
) -> None:
    """Show processor, limits, memory and versions, known traps, and which variant is quickest here."""
    from runtimes.bundle import Bundle
    from runtimes.doctor import fatal_traps, limits, look, quickest, traps
    from runtimes.machine import describe_machine

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
    opened = Bundle.open(default_bundle() if bundle is None else bundle)
    typer.echo(f"measuring {', '.join(opened.variants)} ({opened.manifest['preset']})", err=True)
    measured = quickest(opened)
    for name, samples in measured.items():
        typer.echo(f"{name:<12} {1 / samples.median:,.0f} tokens/s +-{samples.spread:.0%}")
    best, default = next(iter(measured)), opened.variants[0]
    target = opened.manifest["target"]
    told = "the default" if best == default else f"the default is {default}, chosen for the target {target}"
    typer.echo(f"quickest     {best} ({told})")
