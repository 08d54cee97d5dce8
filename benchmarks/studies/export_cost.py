"""Measures `slmx export --all` for every preset: time, peak memory, file sizes, nodes of the graphs.

python -m benchmarks.studies.export_cost --out export-cost.json
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from benchmarks.child import output_of
from benchmarks.program import run
from benchmarks.studies.memory import peak_of, with_peak
from benchmarks.studies.results import Out, Presets, write_results
from runtimes.bundle.manifest import plain
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from slm.presets import PRESETS
from slm.untrained import checkpoint_of


def export_all(preset: str, out: Path) -> tuple[float, int]:
    """Runs the command and returns its seconds and its peak memory in bytes; SlmxError if it fails."""
    checkpoint = checkpoint_of(preset, out.with_name("checkpoint"))
    command = with_peak("export", "--checkpoint", str(checkpoint), "--all", "--out", str(out))
    started = time.perf_counter()
    peak = peak_of(output_of(command, f"slmx export of {preset}", shows_errors=True))
    return time.perf_counter() - started, peak


def measure(preset: str) -> dict[str, Any]:
    """Exports a preset with every variant; returns its figures for JSON."""
    with tempfile.TemporaryDirectory() as work:
        out = Path(work) / "bundle"
        seconds, peak = export_all(preset, out)
        manifest = Bundle.open(out).manifest
        return {
            "seconds": round(seconds, 1),
            "peak_bytes": peak,
            "bytes": {variant: manifest.files[entry.file].bytes for variant, entry in manifest.variants.items()},
            "nodes": {
                variant: entry.figures.operators.nodes
                for variant, entry in manifest.variants.items()
                if entry.figures.operators is not None
            },
            "variants": {variant: plain(entry) for variant, entry in manifest.variants.items()},
        }


def row(preset: str, found: Mapping[str, Any]) -> str:
    """Returns the row of a preset in the table."""
    sizes, nodes = found["bytes"], found["nodes"]
    cells = [preset, f"{found['seconds']:.0f}", f"{found['peak_bytes'] / 2**20:,.0f}"]
    cells += [*(f"{size:,}" for size in sizes.values()), f"{sizes['int8'] / sizes['fp32']:.3f}"]
    return f"| {' | '.join(cells)} | {nodes['fp32']}, {nodes['int8']} |"


def main(preset: Presets = None, out: Out = None) -> None:
    """Export each preset with every variant, and print a table."""
    results = {}
    typer.echo("| preset | seconds | peak MiB | " + " | ".join(VARIANTS) + " | int8 / fp32 | nodes fp32, int8 |")
    typer.echo("|" + "---|" * (len(VARIANTS) + 5))
    for name in preset or PRESETS:
        results[name] = measure(name)
        typer.echo(row(name, results[name]))
    write_results(out, {}, results)


if __name__ == "__main__":
    run(main)
