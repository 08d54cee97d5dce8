"""Checks the wheel of this source tree on emulated Raspberry Pis: python -m benchmarks.pi."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.pi.checks import FAILED, Result, check, expect
from benchmarks.pi.machine import CPUS, Cache, Cpus, cache_folder, prepare
from benchmarks.program import run
from runtimes.bundle.variants import VARIANTS
from runtimes.system.machine import usable_cores
from slm.console.notice import log_line

PRESET = "nano"


def export_variants(out: Path) -> Path:
    """Exports nano with every variant that onnxruntime runs."""
    from export.exporter import export_bundle
    from export.settings import ExportSettings

    names = tuple(name for name, variant in VARIANTS.items() if variant.runner == "onnxruntime")
    export_bundle(ExportSettings(preset=PRESET, out=out, variants=names), log_line)
    return out


def table(results: Iterable[Result]) -> str:
    """Returns the results as Markdown."""
    lines = ["| processor | check | result | seconds | |", "|---|---|---|---:|---|"]
    lines += [f"| {r.cpu} | {r.check} | {r.outcome} | {r.seconds:.0f} | {r.note} |" for r in results]
    return "\n".join(lines)


def main(
    cpu: Cpus = None,
    bundle: Annotated[Path | None, typer.Option(help="Take this bundle; default: export nano.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processors at a time; default: the cores here.")] = usable_cores(),
    cache: Cache = None,
) -> None:
    """Write stories on emulated Raspberry Pis and compare them with those of this machine; exit 1 on a failure."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        machine = prepare(cache or cache_folder(), Path(folder) / "site")
        expected = expect(bundle or export_variants(Path(folder) / PRESET))
        checked = pool.map(lambda name: _checked(name, list(check(machine, name, expected))), cpu or CPUS)
        results = [result for found in checked for result in found]
    typer.echo(table(results))
    failed = [result for result in results if result.outcome == FAILED]
    typer.echo(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    raise typer.Exit(1 if failed else 0)


def _checked(cpu: str, results: list[Result]) -> list[Result]:
    typer.echo(f"{cpu}: {sum(r.seconds for r in results):.0f} s", err=True)
    return results


if __name__ == "__main__":
    run(main)
