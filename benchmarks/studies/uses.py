"""Measures which form of the weights, and how many threads, are fastest for which use.

    python -m benchmarks.studies.uses --out docs/uses.json

The uses are one story, one story whose context is three quarters full, eight stories in a batch, and a prompt of
200 tokens. All forms take turns in every round. nano and micro are the shipped models; the other presets have random
weights. Nothing else should run.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import typer

from benchmarks.program import run
from benchmarks.studies.quantization import FLOAT, write_models
from benchmarks.studies.results import Out, Presets, Rounds, write_results
from runtimes.engine.decode_time import decode_seconds
from runtimes.engine.pool import Pool
from runtimes.engine.session import Session
from runtimes.system.machine import usable_cores
from runtimes.system.timing import Samples, alternate
from runtimes.types import SamplingParams
from slm.checkpoint import load_checkpoint
from slm.console.counted import counted
from slm.folder_kind import PRETRAINED
from slm.presets import GPTConfig
from slm.untrained import untrained_checkpoint

FORMS = ("u8-tensor", "q8-block-32", "q8-block-64", "q8-block-128", "int4-block-128")
PRESETS = ("nano", "micro", "small", "medium")
MANY_STEPS, STEPS = {"nano": 120, "micro": 80, "small": 48}, 24
ROWS = 8
PROMPT = 200
GREEDY = SamplingParams(temperature=0)


def one_story(session: Session, steps: int) -> float:
    """Returns the tokens per second of a story."""
    return steps / decode_seconds(session, [0], GREEDY, steps)


def late_in_a_story(session: Session, steps: int) -> float:
    """Returns the tokens per second after three quarters of the context."""
    session.reset()
    session.prefill(_ids(session.config.block_size * 3 // 4 - steps // 2))
    started = time.perf_counter()
    for _ in range(steps):
        session.step(1)
    return steps / (time.perf_counter() - started)


def eight_stories(session: Session, steps: int) -> float:
    """Returns the tokens per second of eight stories together."""
    pool = Pool(session, ROWS)
    for _ in range(ROWS):
        pool.prefill(pool.add(), [0])
    tokens = [*range(1, ROWS + 1)]
    started = time.perf_counter()
    for _ in range(steps):
        tokens = np.argmax(pool.step(tokens), axis=1).tolist()
    return ROWS * steps / (time.perf_counter() - started)


def prompt(session: Session, steps: int) -> float:
    """Returns the tokens per second at which a prompt is read."""
    session.reset()
    started = time.perf_counter()
    session.prefill(_ids(PROMPT))
    return PROMPT / (time.perf_counter() - started)


def _ids(count: int) -> list[int]:
    """Returns many different ids, always the same ones."""
    return [7 * place % 4000 for place in range(count)]


USES: Mapping[str, Callable[[Session, int], float]] = {
    "one story": one_story,
    "late in a story": late_in_a_story,
    "eight stories": eight_stories,
    "prompt of 200": prompt,
}


def prepare(preset: str, folder: Path) -> GPTConfig:
    """Writes the models of a preset into a folder; returns its shape."""
    checkpoint = PRETRAINED / preset
    if not checkpoint.is_dir():
        checkpoint = folder / "checkpoint"
        checkpoint.mkdir()
        untrained_checkpoint(preset, checkpoint)
    model = load_checkpoint(checkpoint).model
    write_models(model, folder, FORMS)
    return model.config


def measure(folder: Path, config: GPTConfig, preset: str, rounds: int) -> dict[str, dict[str, Samples]]:
    """Returns the tokens per second by use, and by form and threads, such as `u8-tensor 2`."""
    threads, steps = sorted({1, usable_cores()}), MANY_STEPS.get(preset, STEPS)
    sessions = {
        f"{form} {count}": Session.open(folder / f"{form}.onnx", config, count)
        for form in (*FORMS, FLOAT)
        for count in threads
    }
    return {
        use: alternate({name: partial(use_once, session, steps) for name, session in sessions.items()}, rounds)
        for use, use_once in USES.items()
    }


def table(use: str, found: Mapping[str, Mapping[str, Mapping[str, Samples]]]) -> str:
    """Returns the table of a use: tokens per second, by form and threads."""
    names = list(next(iter(found.values()))[use])
    lines = [f"| {use} | " + " | ".join(found) + " |", "|---|" + "---:|" * len(found)]
    for name in names:
        form, count = name.rsplit(" ", 1)
        cells = [f"{uses[use][name].median:,.0f} ±{uses[use][name].spread:.0%}" for uses in found.values()]
        lines.append(f"| {form}, {counted(int(count), 'thread')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(preset: Presets = None, rounds: Rounds = 9, out: Out = None) -> None:
    """Measure and print a table for each use."""
    found = {}
    for name in preset or PRESETS:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = measure(Path(folder), prepare(name, Path(folder)), name, rounds)
    typer.echo("\n\n".join(table(use, found) for use in USES))
    tokens_per_second = {
        name: {use: {way: row.values for way, row in ways.items()} for use, ways in uses.items()}
        for name, uses in found.items()
    }
    write_results(out, {"rounds": rounds}, {"tokens_per_second": tokens_per_second})


if __name__ == "__main__":
    run(main)
