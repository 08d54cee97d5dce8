"""Measures the overhead of the loop and of a process: python -m benchmarks.studies.loop_overhead --work FOLDER.

It prints every figure of docs/runtime.md with its goal: the share of a step outside session.run, decoding compared with
onnxruntime-genai and llama.cpp, prefill compared with PyTorch, eight stories in a batch, cold start, peak memory, and
memory over thousands of stories. Decoding and prefill are measured as in `slmx bench`.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from benchmarks.child import output_of
from benchmarks.program import run
from benchmarks.report.leaderboard import presets_of
from benchmarks.report.metrics import DECODE, FIRST_TOKEN, Metric
from benchmarks.report.reader import read_report
from benchmarks.report.record import Report, Result
from benchmarks.run import cases
from benchmarks.run.bench import Bench
from benchmarks.run.progress import Meter
from benchmarks.run.settings import BenchSettings
from benchmarks.run.targets import Target, target_of_preset
from benchmarks.studies.figures import Figure, at_least, at_most, table
from benchmarks.studies.memory import peak_of, with_peak
from benchmarks.studies.results import Out, Presets, Rounds, write_results
from runtimes.bundle.store import Bundle
from runtimes.engine.arrays import FloatArray
from runtimes.engine.cache import SharedCache, open_onnx
from runtimes.engine.decode_time import decode_seconds
from runtimes.engine.generator import Generator
from runtimes.engine.pool import Pool
from runtimes.engine.sampler import Sampler
from runtimes.engine.session import Session
from runtimes.system.timing import Samples, alternate
from runtimes.types import SamplingParams
from slm.console.errors import SlmxError
from slm.memory import resident_bytes

PROMPT = "Once upon a time"
TOKENS, ROWS = 200, 8
GREEDY = SamplingParams(temperature=0)
SAMPLED = SamplingParams(temperature=0.8, top_k=40, top_p=0.95, seed=1)
PRESETS = ("nano", "micro", "small", "medium")
PEERS = ("onnxruntime-genai int8", "llama.cpp Q8_0", "llama.cpp Q4_0")
EIGHT_BITS = ("int8", "q8")
# How many times as fast as another runner the best variant with 8 bits should be, for one story.
GOALS = {PEERS[0]: 1.15, PEERS[1]: 2.0, PEERS[2]: 1.3, "torch eager": 10.0}
GOALS_OF = {("nano", PEERS[1]): 1.7, ("micro", PEERS[1]): 1.7, ("nano", "torch eager"): 8.0}
INT4_GOALS = {"small": 1.8, "medium": 1.8}  # int4, relative to llama.cpp Q4_0
BATCH_GOAL = 1.5  # eight stories together, relative to llama.cpp
PREFILL_GOALS = {"fp32": 1.0, "8 bits": 2.0}
SHORT, LONG = cases.PROMPT, cases.LONG_PROMPT
SOAK_STORIES, SOAK_TOKENS, SOAK_EVERY = 10_000, 20, 500
IMPORTS = ("numpy", "onnxruntime", "tiktoken", "typer")
TIME_IMPORTS = """
import importlib, sys, time
for name in sys.argv[1:]:
    started = time.perf_counter()
    importlib.import_module(name)
    print(name, time.perf_counter() - started)
"""


class Runs(Protocol):
    """The part of an onnxruntime session that the loop uses."""

    def run_with_iobinding(self, binding: object) -> None:
        """Runs with the bound inputs and outputs."""


class Timed:
    """Wraps an onnxruntime session and adds up the seconds inside its runs."""

    def __init__(self, session: Runs) -> None:
        self._session = session
        self.seconds = 0.0

    def run_with_iobinding(self, binding: object) -> None:
        """Runs, and counts the time."""
        started = time.perf_counter()
        self._session.run_with_iobinding(binding)
        self.seconds += time.perf_counter() - started


def outside_run(session: Session, prompt: list[int], sampling: SamplingParams) -> float:
    """Returns the seconds per step outside session.run: sampling and the loop around it."""
    cache = session._cache
    assert isinstance(cache, SharedCache)
    sampler = Sampler(sampling, prompt)
    session.reset()
    logits = session.prefill(prompt)
    bare = cache._session
    timed = cache._session = Timed(bare)
    try:
        started = time.perf_counter()
        for _ in range(TOKENS):
            logits = session.step(sampler(logits))
        return (time.perf_counter() - started - timed.seconds) / TOKENS
    finally:
        cache._session = bare


def batch_seconds(session: Session, prompt: list[int], sampling: SamplingParams, tokens: int, rows: int) -> float:
    """Returns the seconds for `tokens` steps of `rows` rows together, including sampling, without the prefill."""
    samplers = [Sampler(sampling, prompt) for _ in range(rows)]
    pool = Pool(session, rows)
    logits: Iterable[FloatArray] = [pool.prefill(pool.add(), prompt)] * rows
    for _ in range(rows - 1):
        pool.add(0, len(prompt))
    started = time.perf_counter()
    for _ in range(tokens):
        logits = pool.step([sampler(row) for sampler, row in zip(samplers, logits, strict=True)])
    return time.perf_counter() - started


def loop_figures(subject: Target, rounds: int) -> tuple[list[Figure], dict[str, Samples]]:
    """Measures the loop's share of a step of int8 on one thread, greedy and sampled."""
    config, prompt = subject.config, prompt_of(subject)
    session = Session.open(subject.bundle.model_path("int8"), config, 1)
    measurements: dict[str, Callable[[], float]] = {
        "greedy step": lambda: decode_seconds(session, prompt, GREEDY, TOKENS) / TOKENS,
        "sampled step": lambda: decode_seconds(session, prompt, SAMPLED, TOKENS) / TOKENS,
        "outside session.run, greedy": lambda: outside_run(session, prompt, GREEDY),
        "outside session.run, sampled": lambda: outside_run(session, prompt, SAMPLED),
    }
    taken = alternate(measurements, rounds)
    step = taken["greedy step"].median
    greedy, sampled = (taken[f"outside session.run, {way}"].median / step for way in ("greedy", "sampled"))
    return [
        at_most(f"{subject.name}: loop of a greedy step", greedy, 0.04, "{:.1%}"),
        at_most(f"{subject.name}: sampling with top-k 40 + top-p 0.95", sampled - greedy, 0.15, "{:.1%}"),
    ], taken


def batch_figures(subject: Target, rounds: int) -> tuple[list[Figure], dict[str, Samples]]:
    """Measures eight stories in a batch relative to one, and to weights that stay unsigned in memory.

    All run on their default threads.
    """
    config, prompt = subject.config, prompt_of(subject)
    path = subject.bundle.model_path("int8")
    session = Session.open(path, config)
    unsigned = Session(SharedCache(open_onnx(path, session.threads, signed=False), config), config, session.threads)
    tokens = min(TOKENS, config.block_size - len(prompt) - 1)
    measurements: dict[str, Callable[[], float]] = {}
    for way, sampling in (("greedy", GREEDY), ("sampled", SAMPLED)):
        measurements[f"one, {way}"] = lambda s=sampling: decode_seconds(session, prompt, s, tokens) / tokens  # type: ignore[misc]
        measurements[f"eight, {way}"] = lambda s=sampling: (  # type: ignore[misc]
            batch_seconds(session, prompt, s, tokens, ROWS) / (tokens * ROWS)
        )
    measurements["eight, unsigned"] = lambda: batch_seconds(unsigned, prompt, GREEDY, tokens, ROWS) / (tokens * ROWS)
    taken = alternate(measurements, rounds)
    gains = {way: taken[f"one, {way}"].median / taken[f"eight, {way}"].median for way in ("greedy", "sampled")}
    signed = taken["eight, unsigned"].median / taken["eight, greedy"].median
    return [
        *(Figure(f"{subject.name}: 8 stories / one story, {way}", f"{gain:.2f}x", "") for way, gain in gains.items()),
        at_least(f"{subject.name}: 8 stories / 8 with unsigned weights", signed, 1.35, "{:.2f}x"),
    ], {f"{subject.name} {name}": samples for name, samples in taken.items()}


def cold_start(bundle: Path) -> tuple[float, int]:
    """Returns the seconds from process start to the first text of `slmx generate`, and its peak memory in bytes."""
    command = with_peak("generate", PROMPT, "--bundle", str(bundle), "--variant", "int8", "--seed", "1")
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        seen = b""
        while len(seen) <= len(PROMPT):
            chunk = os.read(child.stdout.fileno(), 4096)
            if not chunk:
                raise SlmxError(f"slmx generate failed: {child.stderr.read().decode(errors='replace').strip()}")
            seen += chunk
        first = time.perf_counter() - started
        return first, peak_of((seen + child.stdout.read()).decode())


def import_seconds() -> dict[str, float]:
    """Returns the seconds to import each library of `slmx generate` in a fresh Python, one after the other."""
    told = output_of([sys.executable, "-c", TIME_IMPORTS, *IMPORTS], "importing the libraries of slmx generate")
    return {name: float(seconds) for name, seconds in map(str.split, told.splitlines())}


def soak(bundle: Path, stories: int, every: int) -> list[int]:
    """Returns the resident bytes of this process after each `every` short stories with different prompts and seeds."""
    generator = Generator(Bundle.open(bundle), "int8")
    seen = []
    for number in range(stories):
        generator.generate(f"{PROMPT} number {number}", max_tokens=SOAK_TOKENS, seed=number)
        if number % every == every - 1:
            gc.collect()
            seen.append(resident_bytes())
    return seen


def decode_figures(report: Report) -> list[Figure]:
    """Compares decoding and prefill with the peers and PyTorch, and with the memory's bandwidth."""
    rows: list[Figure] = []
    for preset in presets_of(report):
        ours = best_of(report, preset, EIGHT_BITS, SHORT)
        for runner in GOALS:
            goal = GOALS_OF.get((preset, runner), GOALS[runner])
            rows.append(_ratio(f"{preset}: 8 bits / {runner}", ours, best_of(report, preset, (runner,), SHORT), goal))
        share = None if ours is None else report.ceiling_share(ours)
        if share is not None:
            rows.append(Figure(f"{preset}: share of the read bandwidth", f"{share:.0%}", ""))
        int4, q4 = (best_of(report, preset, (runner,), SHORT) for runner in ("int4", "llama.cpp Q4_0"))
        rows.append(_ratio(f"{preset}: int4 / llama.cpp Q4_0", int4, q4, INT4_GOALS.get(preset)))
        ours, theirs = (best_of(report, preset, runners, SHORT, ROWS) for runners in (EIGHT_BITS, (PEERS[1],)))
        rows.append(_ratio(f"{preset}: 8 stories, 8 bits / {PEERS[1]}", ours, theirs, BATCH_GOAL))
        rows += prefill_figures(report, preset)
    return rows


def _ratio(name: str, ours: Result | None, theirs: Result | None, goal: float | None) -> Figure:
    """Returns how many times as fast one runner decodes as another."""
    if ours is None or ours.decode is None or theirs is None or theirs.decode is None:
        return Figure(name, "not measured", "" if goal is None else f">= {goal:.2f}x")
    return at_least(name, ours.decode.median / theirs.decode.median, goal, "{:.2f}x")


def prefill_figures(report: Report, preset: str) -> list[Figure]:
    """Compares the prefill of our variants with PyTorch's, for each long prompt that was measured."""
    rows = []
    prompts = {result.case.prompt_tokens for result in report.results if result.case.preset == preset} - {SHORT}
    for prompt in sorted(prompts):
        reference = best_of(report, preset, ("torch eager",), prompt, metric=FIRST_TOKEN)
        for name, runners in (("fp32", ("fp32",)), ("8 bits", EIGHT_BITS)):
            ours = best_of(report, preset, runners, prompt, metric=FIRST_TOKEN)
            ratio = None if ours is None or reference is None else FIRST_TOKEN.gain(ours, reference)
            if ratio is not None:
                goal = PREFILL_GOALS[name] if prompt == LONG else None
                rows.append(at_least(f"{preset}: {name}, prefill of {prompt} / torch eager", ratio, goal, "{:.2f}x"))
    return rows


def best_of(
    report: Report, preset: str, runners: Sequence[str], prompt_tokens: int, rows: int = 1, metric: Metric = DECODE
) -> Result | None:
    """Returns the best result of some runners and all threads, with an empty context; None if there is none."""
    found = [
        result
        for result in report.results
        if (result.case.preset, result.case.depth, result.case.batch) == (preset, 0, rows)
        and result.case.runner in runners
        and result.case.prompt_tokens == prompt_tokens
        and result.decode is not None
    ]
    return max(found, key=metric.rank, default=None)


def prompt_of(subject: Target) -> list[int]:
    """Returns the prompt's ids after the token that begins a story."""
    tokenizer = subject.checkpoint.tokenizer
    return [tokenizer.begin, *tokenizer.encode(PROMPT)]


def process_figures(subject: Target, rounds: int) -> tuple[list[Figure], dict[str, Any]]:
    """Measures cold start and peak memory of `slmx generate` with int8."""
    starts = [cold_start(subject.bundle.path) for _ in range(rounds)]
    first, peak = Samples([seconds for seconds, _ in starts]), max(size for _, size in starts) / 1e6
    goals = {"nano": (0.30, 68.0), "medium": (0.50, 150.0)}.get(subject.name, (None, None))
    return [
        at_most(f"{subject.name}: cold start to the first word", first.median, goals[0], "{:.2f} s"),
        at_most(f"{subject.name}: peak memory of slmx generate", peak, goals[1], "{:.0f} MB"),
    ], {f"{subject.name} cold start": starts}


def soak_figure(subject: Target, stories: int) -> tuple[Figure, list[int]]:
    """Measures the growth of resident memory over many stories, from the first samples to the last."""
    seen = soak(subject.bundle.path, stories, SOAK_EVERY)
    grown = (seen[-1] - seen[0]) / 1e6
    name = f"{subject.name}: memory grown from story {SOAK_EVERY:,} to {stories:,}"
    return at_most(name, grown, 1.0, "{:.2f} MB"), seen


def main(
    work: Annotated[Path, typer.Option(help="Keeps models and measurements; a rerun continues with them.")],
    preset: Presets = None,
    rounds: Rounds = 15,
    report_file: Annotated[
        Path | None, typer.Option("--report", help="Take decoding and prefill from this report.json of slmx bench.")
    ] = None,
    out: Out = None,
) -> None:
    """Measure and print each figure with its goal."""
    names = tuple(preset or PRESETS)
    bench = None
    with Meter() as meter:
        if report_file is None:
            bench = Bench(
                BenchSettings(work, presets=names, variants=("torch eager", "fp32", *EIGHT_BITS, "int4"), peers=PEERS),
                meter,
            )
            bench.run()
            report = bench.report()
        else:
            report = read_report(report_file)
    figures: list[Figure] = []
    samples: dict[str, Samples] = {}
    results: dict[str, Any] = {"imports": import_seconds()}
    subjects = {name: target_of_preset(name, ("fp32", "int8"), work / "work", meter.log) for name in names}
    smallest = min(subjects.values(), key=lambda subject: subject.config.parameters)
    for taken in (loop_figures(smallest, rounds), *(batch_figures(subject, rounds) for subject in subjects.values())):
        figures += taken[0]
        samples |= taken[1]
    figures += decode_figures(report)
    for subject in subjects.values():
        rows, starts = process_figures(subject, rounds)
        figures += rows
        results |= starts
    row, results["soak"] = soak_figure(smallest, SOAK_STORIES)
    figures.append(row)
    results["seconds"] = {name: values.values for name, values in samples.items()}
    results["report"] = json.loads(report.to_json()) if report_file is None else report_file.name
    typer.echo(table(figures))
    typer.echo("\nimports: " + ", ".join(f"{name} {1000 * took:.0f} ms" for name, took in results["imports"].items()))
    write_results(out, {"rounds": rounds}, results, figures)
    if bench is not None:  # only now: until then, a rerun continues with its measurements
        bench.finish()


if __name__ == "__main__":
    run(main)
