"""Measures which variant, and how many threads, are fastest for which use.

    python -m benchmarks.studies.uses --out docs/uses.json

The uses are one story, one story whose context is three quarters full, eight stories in a batch, and a prompt of
200 tokens. All variants take turns in every round. nano, micro and small are the shipped models; the other presets have
random weights. Nothing else should run. A table has tokens/s at the default number of threads, and how many times those
of int8 they are, both as medians of the rounds with half the distance of the quartiles. The last table has the rates of
all cores relative to those of one thread. The file has all numbers.
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
from runtimes.bundle.pin import MAX_THREADS
from runtimes.engine.decode_time import decode_seconds
from runtimes.engine.pool import Pool
from runtimes.engine.session import ONE_THREAD_BYTES, Session, default_threads
from runtimes.system.machine import usable_cores
from runtimes.system.timing import Samples, alternate
from runtimes.types import SamplingParams
from slm.checkpoint import load_checkpoint
from slm.presets import GPTConfig
from slm.untrained import checkpoint_of

# The models that are written, and what the tables call them. The first one is that to which the others are compared.
FORMS = {
    "u8-tensor": "int8",
    "q8-block-64": "q8",
    "q8-block-128": "q8 in blocks of 128",
    "int4-block-128": "int4",
    FLOAT: "fp32",
}
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
    model = load_checkpoint(checkpoint_of(preset, folder / "checkpoint")).model
    write_models(model, folder, [form for form in FORMS if form != FLOAT])
    return model.config


def thread_counts() -> list[int]:
    """Returns the numbers of threads that are measured: one, the default of a large model, and all cores up to 256."""
    return sorted({1, default_threads(ONE_THREAD_BYTES), min(usable_cores(), MAX_THREADS)})


def measure(folder: Path, config: GPTConfig, preset: str, rounds: int) -> dict[str, dict[str, Samples]]:
    """Returns the tokens per second by use, and by variant and threads, such as `int8 2`."""
    steps = MANY_STEPS.get(preset, STEPS)
    sessions = {
        f"{name} {count}": Session.open(folder / f"{form}.onnx", config, count)
        for form, name in FORMS.items()
        for count in thread_counts()
    }
    return {
        use: alternate({name: partial(use_once, session, steps) for name, session in sessions.items()}, rounds)
        for use, use_once in USES.items()
    }


def default_ways(folder: Path) -> dict[str, str]:
    """Returns the variant with its default number of threads, such as `int8 1`, by variant."""
    sizes = {name: (folder / f"{form}.onnx").stat().st_size for form, name in FORMS.items()}
    return {name: f"{name} {default_threads(size)}" for name, size in sizes.items()}


def ratios(samples: Samples, base: Samples) -> Samples:
    """Returns the ratio of two ways in each round."""
    return Samples([one / other for one, other in zip(samples.values, base.values, strict=True)])


def _cell(ratio: Samples) -> str:
    """Returns the median of ratios and half the distance of their quartiles."""
    return f"{ratio.median:.2f} ±{ratio.spread * ratio.median:.2f}"


def threads_table(found: Mapping[str, Mapping[str, Mapping[str, Samples]]], most: int) -> str:
    """Returns the rates of the most threads relative to those of one thread, by use and variant."""
    lines = [f"| {most} threads against one | " + " | ".join(found) + " |", "|---|" + "---:|" * len(found)]
    for use in USES:
        for name in FORMS.values():
            gains = [ratios(uses[use][f"{name} {most}"], uses[use][f"{name} 1"]) for uses in found.values()]
            lines.append(f"| {use}, {name} | " + " | ".join(map(_cell, gains)) + " |")
    return "\n".join(lines)


def table(
    use: str, found: Mapping[str, Mapping[str, Mapping[str, Samples]]], ways: Mapping[str, dict[str, str]]
) -> str:
    """Returns the table of a use.

    Args:
        use: One of `USES`.
        found: The samples by preset, use, and variant with threads.
        ways: `default_ways` by preset.
    """
    lines = [f"| {use} | " + " | ".join(found) + " |", "|---|" + "---:|" * len(found)]
    first = next(iter(FORMS.values()))
    for name in FORMS.values():
        cells = []
        for preset, uses in found.items():
            own = uses[use][ways[preset][name]]
            ratio = ratios(own, uses[use][ways[preset][first]])
            compared = "" if name == first else f" ({_cell(ratio)})"
            cells.append(f"{own.median:,.0f} ±{own.spread:.0%}{compared}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(preset: Presets = None, rounds: Rounds = 9, out: Out = None) -> None:
    """Measure and print a table for each use."""
    found, ways = {}, {}
    for name in preset or PRESETS:
        with tempfile.TemporaryDirectory() as folder:
            config = prepare(name, Path(folder))
            found[name], ways[name] = measure(Path(folder), config, name, rounds), default_ways(Path(folder))
    tokens_per_second = {
        name: {use: {way: row.values for way, row in samples.items()} for use, samples in uses.items()}
        for name, uses in found.items()
    }
    write_results(out, {"rounds": rounds}, {"tokens_per_second": tokens_per_second, "default": ways})
    tables = [table(use, found, ways) for use in USES]
    if (most := thread_counts()[-1]) > 1:
        tables.append(threads_table(found, most))
    typer.echo("\n\n".join(tables))


if __name__ == "__main__":
    run(main)
