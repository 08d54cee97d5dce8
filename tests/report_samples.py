"""Small hand-made reports, with samples from fixed seeds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.report.record import FAILED, SKIPPED, Case, Model, Report, Result

MIB = 2**20
MACHINE = {"cpu": "Test CPU", "cores": "2", "python": "3.11.7", "onnxruntime": "1.32.0"}
# Tokens per second of nano on one thread, memory and disk in MiB, increase of the bits per byte.
RUNNERS = {
    "fp32": (4000.0, 90, 7.4, 0.0),
    "int8": (5000.0, 75, 2.0, 0.0018),
    "torch eager": (400.0, 260, 7.4, 0.0),
    "llama.cpp Q4_0": (5500.0, 60, 1.3, 0.041),
    "llama.cpp Q8_0": (3000.0, 70, 2.2, 0.002),
}
SLOWER = {"nano": 1.0, "micro": 2.0, "small": 4.0, "medium": 12.0}
NEW_TOKENS = 65


def around(middle: float, rng: random.Random) -> list[float]:
    """Returns seven samples near a value, whose median is exactly that value."""
    half = [middle * (1 + rng.uniform(0.001, 0.02)) for _ in range(3)]
    return [*half, middle, *(middle * middle / value for value in half)]


def result(runner: str, preset: str = "nano", threads: int = 1, depth: int = 0, speed: float | None = None) -> Result:
    """Returns a measured result of a runner, at `speed` tokens per second or the speed of the table above."""
    rng = random.Random(f"{runner} {preset} {threads} {depth}")
    usual, memory, disk, increase = RUNNERS[runner]
    gain = 1.5 if threads == 2 else 1.0
    speed = speed or usual * gain / SLOWER[preset] / (1 + depth / 1000)
    return Result(
        Case(preset, runner, threads, prompt_tokens=4, depth=depth, new_tokens=NEW_TOKENS),
        load_seconds=0.05,
        first_token_seconds=around(2 / speed, rng),
        decode_seconds=around((NEW_TOKENS - 1) / speed, rng),
        token_seconds=[rng.gammavariate(20, 1 / speed / 20) for _ in range(200)],
        interpreter_bytes=10 * MIB,
        imports_bytes=min(55, memory - 10) * MIB,
        peak_bytes=memory * MIB,
        disk_bytes=int(disk * MIB * SLOWER[preset]),
        weight_bytes=int(disk * MIB * SLOWER[preset]),
        agreement=1.0 if increase == 0 else 0.9,
        bits_per_byte=0.8 * (1 + increase),
        bpb_increase=increase,
    )


def report(results: Sequence[Result], warnings: Sequence[str] = (), machine: dict[str, str] | None = None) -> Report:
    """Returns a report of these results on the machine of the tests."""
    return Report(
        created="2026-01-02T03:04:05+00:00",
        command="slmx bench",
        machine=MACHINE if machine is None else machine,
        bandwidth={"1": 10e9, "2": 18e9},
        text="stories.txt, 4,096 tokens",
        models={
            "nano": Model(1_850_112, True, 5400.0, 0.78, 5.4, 12.3),
            "micro": Model(4_271_040, True, 9000.0, 0.71, 4.7, 14.0),
            "medium": Model(33_970_944, False),
        },
        results=list(results),
        warnings=list(warnings),
    )


def large_report() -> Report:
    """Returns a report of two presets, five runners, two thread counts, three depths, a failed and a skipped case."""
    results = [
        result(runner, preset, threads, depth)
        for preset in ("medium", "nano")
        for runner in RUNNERS
        for threads in (1, 2)
        for depth in (0, 64, 192)
    ]
    results.append(Result(Case("nano", "int4", 1, 4, 0, NEW_TOKENS), FAILED, "its logits are not PyTorch's"))
    results.append(Result(Case("nano", "candle", 1, 4, 0, NEW_TOKENS), SKIPPED, "not installed; pip install candle"))
    return report(results, ["the load average was 1.8 of 2 cores"])


def strange_report(name: str) -> Report:
    """Returns a report with one measured, one failed and one skipped case of a runner, and a warning with its name."""
    one = result("int8")
    case = replace(one.case, runner=name)
    failed = Result(replace(case, threads=2), FAILED, f"{name} was killed")
    skipped = Result(replace(case, threads=4), SKIPPED, f"{name} is not installed\nsee its page")
    return report([one, replace(one, case=case), failed, skipped], [f"{name} is old"])
