"""Measures the effect of spinning threads on idle and busy machines: python -m benchmarks.studies.spinning.

Between two operators, a thread of onnxruntime spins and then sleeps. Each sample comes from a fresh process, because
the threads of another session in the same process would also spin. The settings are measured in turn in every round.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import typer

from benchmarks.program import run
from benchmarks.studies.results import Out, Presets, Rounds, write_results
from runtimes.engine.cache import SharedCache, open_onnx
from runtimes.engine.decode_time import decode_seconds
from runtimes.engine.session import Session
from runtimes.system.timing import Samples
from runtimes.types import SamplingParams
from slm.presets import get_preset

PRESETS = ("medium", "small")
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
                    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
                        sample = fresh.submit(_sample, model, preset, spin).result()
                    found[situation][spin].append(round(sample, 1))
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


def main(preset: Presets = None, rounds: Rounds = 7, out: Out = None) -> None:
    """Print a table for each preset."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in preset or PRESETS:
            results[name] = measure(name, rounds, Path(folder))
            typer.echo(table(name, results[name]))
    write_results(out, {"rounds": rounds, "threads": THREADS, "tokens": TOKENS}, results)


if __name__ == "__main__":
    run(main)
