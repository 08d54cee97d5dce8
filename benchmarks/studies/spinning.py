"""Measures the effect of spinning threads on idle and busy machines: python -m benchmarks.studies.spinning.

Between two operators, a thread of onnxruntime spins and then sleeps. Each sample comes from a fresh process, because
the threads of another session in the same process would also spin. The settings are measured in turn in every round.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from runtimes.engine.decode_time import decode_seconds
from runtimes.system.machine import describe_machine
from runtimes.system.timing import Samples
from slm.console.errors import SlmxError
from slm.presets import get_preset

PROMPT = list(range(100, 116))
TOKENS = 128
THREADS = 2
DEFAULT = "default"
SPINS = (DEFAULT, "0", "20", "50", "100", "200")
BUSY = [sys.executable, "-c", "while True: pass"]
SITUATIONS = {"idle": [], "beside a niced process": ["nice", "-n", "10", *BUSY], "beside a busy process": BUSY}


@contextmanager
def _situation(name: str) -> Iterator[None]:
    """Runs the other process of a situation inside the block."""
    command = SITUATIONS[name]
    if not command:
        yield
        return
    with subprocess.Popen(command) as other:
        try:
            yield
        finally:
            other.kill()


def _sample(model: Path, preset: str, spin: str) -> float:
    """Measures tokens/s in this process."""
    from runtimes.engine.cache import SharedCache, open_onnx
    from runtimes.engine.session import Session
    from runtimes.types import SamplingParams

    config = get_preset(preset).config
    opened = open_onnx(model, THREADS, spin=None if spin == DEFAULT else int(spin))
    session = Session(SharedCache(opened, config), config, THREADS)
    greedy = SamplingParams(temperature=0)
    decode_seconds(session, PROMPT, greedy, TOKENS // 4)
    return TOKENS / decode_seconds(session, PROMPT, greedy, TOKENS)


def _export(preset: str, folder: Path) -> Path:
    """Writes the int8 graph of random weights."""
    import torch

    from export.formats.fused import export_onnx
    from export.formats.quantize import quantize_int8
    from export.formats.recipes import DEFAULT_RECIPE, get_recipe
    from slm.model import GPT

    torch.manual_seed(0)
    fp32, int8 = folder / "fp32.onnx", folder / f"{preset}.onnx"
    export_onnx(GPT(get_preset(preset).config).eval(), fp32)
    quantize_int8(fp32, int8, get_recipe(DEFAULT_RECIPE))
    return int8


def measure(preset: str, rounds: int, folder: Path) -> dict[str, dict[str, list[float]]]:
    """Measures every setting in every situation.

    Args:
        preset: The model's shape.
        rounds: Samples of each setting in each situation.
        folder: The folder for the graph.

    Returns:
        Tokens/s by situation and setting.
    """
    model = _export(preset, folder)
    found: dict[str, dict[str, list[float]]] = {name: {spin: [] for spin in SPINS} for name in SITUATIONS}
    order = random.Random(0)
    for number in range(rounds):
        for situation in SITUATIONS:
            with _situation(situation):
                for spin in order.sample(SPINS, len(SPINS)):
                    command = [
                        sys.executable,
                        "-m",
                        "benchmarks.studies.spinning",
                        "--sample",
                        f"{model}",
                        preset,
                        spin,
                    ]
                    ran = subprocess.run(command, capture_output=True, text=True, check=True)
                    found[situation][spin].append(round(float(ran.stdout), 1))
        typer.echo(f"{preset}: round {number + 1} of {rounds}", err=True)
    return found


def table(preset: str, found: dict[str, dict[str, list[float]]]) -> str:
    """Returns Markdown: the median of each setting, its spread, and its ratio to the default in the same rounds."""
    lines = [f"| {preset}: spin, us | {' | '.join(found)} |", "|---|" + "---:|" * len(found)]
    for spin in SPINS:
        cells = []
        for samples in found.values():
            taken = Samples(samples[spin])
            ratio = statistics.median(a / b for a, b in zip(samples[spin], samples[DEFAULT], strict=True))
            cells.append(f"{taken.median:,.0f} +-{taken.spread:.0%} ({ratio:.2f}x)")
        lines.append(f"| {spin} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(
    presets: Annotated[str, typer.Option(help="Separated by commas.")] = "medium,small",
    rounds: Annotated[int, typer.Option(min=2)] = 7,
    out: Annotated[Path | None, typer.Option(help="JSON file for the samples.")] = None,
) -> None:
    """Print a table for each preset."""
    report: dict[str, object] = {"machine": describe_machine(), "threads": THREADS, "tokens": TOKENS}
    with tempfile.TemporaryDirectory() as folder:
        for preset in presets.split(","):
            found = measure(preset, rounds, Path(folder))
            report[preset] = found
            typer.echo(table(preset, found))
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n", "utf-8", newline="\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--sample"]:
        print(_sample(Path(sys.argv[2]), *sys.argv[3:]))
    else:
        try:
            typer.run(main)
        except SlmxError as error:
            raise SystemExit(f"benchmarks.studies.spinning: {error}") from None
