"""Measures `slmx export --all` for every preset: time, peak memory, file sizes, nodes of the graphs.

python -m benchmarks.studies.export_cost --json docs/export-cost.json
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from runtimes.bundle.manifest import plain
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from runtimes.system.machine import describe_machine
from slm.console.errors import SlmxError
from slm.folder_kind import PRETRAINED
from slm.presets import PRESETS
from slm.untrained import untrained_checkpoint


def export_all(preset: str, out: Path) -> tuple[float, int]:
    """Runs the command and returns its seconds and its peak memory in bytes; SlmxError if it fails."""
    command = [sys.executable, "-m", "slm", "export", "--preset", preset, "--all", "--out", str(out)]
    if not (PRETRAINED / preset).is_dir():
        fresh = out.with_name("checkpoint")
        fresh.mkdir()
        command += ["--checkpoint", str(untrained_checkpoint(preset, fresh))]
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SlmxError(f"export of {preset} failed with exit code {child.returncode}")
    return time.perf_counter() - started, usage.ru_maxrss * 1024


def main(
    preset: Annotated[list[str] | None, typer.Option(help="A preset; repeat for more. Default: all.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Export each preset with every variant and measure it."""
    record: dict[str, Any] = {"machine": describe_machine(), "presets": {}}
    typer.echo("| preset | seconds | peak MiB | " + " | ".join(VARIANTS) + " | int8 / fp32 | nodes fp32, int8 |")
    typer.echo("|" + "---|" * (len(VARIANTS) + 5))
    for name in preset or PRESETS:
        with tempfile.TemporaryDirectory() as work:
            out = Path(work) / "bundle"
            seconds, peak = export_all(name, out)
            bundle = Bundle.open(out)
            files, variants = bundle.manifest.files, bundle.manifest.variants
            sizes = {variant: files[entry.file].bytes for variant, entry in variants.items()}
            counted = {variant: variants[variant].figures.operators for variant in ("fp32", "int8")}
            nodes = {variant: found.nodes for variant, found in counted.items() if found is not None}
            figures = {
                "seconds": round(seconds, 1),
                "peak_bytes": peak,
                "bytes": sizes,
                "nodes": nodes,
                "variants": {variant: plain(entry) for variant, entry in variants.items()},
            }
        record["presets"][name] = figures
        cells = [name, f"{seconds:.0f}", f"{peak / 2**20:,.0f}", *(f"{size:,}" for size in sizes.values())]
        ratio = f"{sizes['int8'] / sizes['fp32']:.3f}"
        typer.echo(f"| {' | '.join(cells)} | {ratio} | {nodes['fp32']}, {nodes['int8']} |")
    if json_file is not None:
        json_file.write_text(json.dumps(record, indent=1) + "\n", "utf-8", newline="\n")


if __name__ == "__main__":
    typer.run(main)
