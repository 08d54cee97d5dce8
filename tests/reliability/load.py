"""Long prompts, many stories, many threads and an hour of serving: the answers stay right, and nothing grows."""

from __future__ import annotations

import gc
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.serving.load import run_load
from benchmarks.serving.servers import Server, running, slmx_command
from benchmarks.studies.loop_overhead import resident_bytes
from runtimes.bundle.store import Bundle
from runtimes.engine.generator import Generator
from slm.errors import SlmxError
from tests.reliability.outcome import Check, Log, Outcome
from tests.reliability.slope import Slope, slope_per_hour

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "runtimes" / "bundles" / "nano"
PROMPT = "Once upon a time"
MEGABYTE = 1e6
MOST_GROWTH = 5 * MEGABYTE  # bytes an hour that the lower end of the interval may reach
MOST_SETTLING = 3 * MEGABYTE  # bytes that it may reach in a shorter run, in which caches still fill
CLIENTS = 16
LETTERS = 1_000_000
LONGEST = 20.0  # seconds for a prompt that does not fit


def check_prompts(quick: bool, log: Log) -> Outcome:
    """Prompts of a million characters: each is refused in one line, or its end is used if the context slides."""
    generator = Generator(Bundle.open(NANO))
    texts = {
        "words": "Tom saw a dog. " * (LETTERS // 15),
        "one letter": "a" * LETTERS,
        "blanks": " " * LETTERS,
        "no spaces": "abcdefghij" * (LETTERS // 10),
        "emoji": "\N{GRINNING FACE}" * (LETTERS // 4),
        "line ends": "\n" * LETTERS,
    }
    outcome = Outcome(0, "prompts of 1,000,000 characters")
    for name, text in texts.items():
        for slide in (False, True):
            before, started = resident_bytes(), time.monotonic()
            try:
                story = generator.generate(text, max_tokens=4, seed=1, on_full="slide" if slide else "stop")
                fine = slide and len(story.ids) <= 4
            except SlmxError as error:
                fine = "\n" not in str(error) and not slide
            seconds, grown = time.monotonic() - started, resident_bytes() - before
            outcome.tried += 1
            if not fine or seconds > LONGEST or grown > 64 * len(text):
                outcome.failures.append(f"{name}, slide {slide}: {seconds:.1f} s, {grown / MEGABYTE:.0f} MB")
        log(f"prompts: {name}")
    return outcome


def check_stories(quick: bool, log: Log) -> Outcome:
    """Memory, open files and threads of a process that writes many short stories."""
    count = 600 if quick else 10_000
    generator = Generator(Bundle.open(NANO), "int8")
    taken: list[tuple[float, int, int, int]] = []
    started = time.monotonic()
    for number in range(count):
        generator.generate(f"{PROMPT} number {number}", max_tokens=20, seed=number)
        if number >= count // 10 and number % (count // 50) == 0:
            gc.collect()
            files = len(os.listdir("/proc/self/fd"))
            taken.append((time.monotonic() - started, resident_bytes(), files, threading.active_count()))
    growth = slope_per_hour([one[0] for one in taken], [one[1] for one in taken])
    outcome = Outcome(count, "stories in one process", figures={"bytes_per_hour": growth._asdict()})
    _judge(outcome, "memory", growth, max(MOST_GROWTH, MOST_SETTLING / _hours(taken)))
    for place, what in ((2, "open files"), (3, "threads")):
        if len({one[place] for one in taken}) > 1:
            outcome.failures.append(f"{what}: {sorted({one[place] for one in taken})}")
    log(f"stories: {growth.per_hour / MEGABYTE:+.1f} MB an hour, over {taken[-1][0]:.0f} s")
    return outcome


def check_threads(quick: bool, log: Log) -> Outcome:
    """Stories of one generator in many threads at once: the ids are those that each has alone."""
    count = 20 if quick else 100
    generator = Generator(Bundle.open(NANO))
    seeds = range(count)
    alone = [generator.generate(PROMPT, max_tokens=60, seed=seed).ids for seed in seeds]
    start = threading.Barrier(count)

    def write(seed: int) -> list[int]:
        start.wait()
        return generator.generate(PROMPT, max_tokens=60, seed=seed).ids

    with ThreadPoolExecutor(count) as threads:
        together = list(threads.map(write, seeds))
    wrong = [seed for seed in seeds if alone[seed] != together[seed]]
    log(f"threads: {len(wrong)} of {count} differ")
    return Outcome(count, "threads at once", [f"seed {seed}" for seed in wrong])


def check_serving(quick: bool, log: Log) -> Outcome:
    """A server at full load: memory, open files and threads stay the same, and every answer is a story."""
    seconds = 20.0 if quick else 3600.0
    taken: list[tuple[float, int, int, int]] = []
    done = threading.Event()

    def watch(server: Server) -> None:
        started = time.monotonic()
        while not done.wait(seconds / 200):
            threads = len(os.listdir(f"/proc/{server.process.pid}/task"))
            taken.append((time.monotonic() - started, server.memory()["VmRSS"], server.descriptors(), threads))

    with (
        tempfile.TemporaryDirectory() as folder,
        running("slmx", slmx_command(NANO, "int8"), Path(folder)) as server,
    ):
        watcher = threading.Thread(target=watch, args=(server,))
        watcher.start()
        try:
            found = run_load(server, CLIENTS, seconds, {"max_tokens": 64}, stream=True)
        finally:
            done.set()
            watcher.join()
    readings = [[round(one[0], 1), one[1]] for one in taken]
    taken = [one for one in taken if one[0] > seconds / 4]  # the slots and the caches of prompts are filled first
    growth = slope_per_hour([one[0] for one in taken], [one[1] for one in taken])
    figures = {
        "bytes_per_hour": growth._asdict(),
        "seconds and bytes": readings[:: max(1, len(readings) // 20)],
        "statuses": found.statuses,
        "tokens": found.tokens,
        "seconds": seconds,
    }
    outcome = Outcome(sum(found.statuses.values()), "answers of a server", figures=figures)
    _judge(outcome, "memory", growth, max(MOST_GROWTH, MOST_SETTLING / _hours(taken)))
    for place, what in ((2, "open files"), (3, "threads")):
        values = slope_per_hour([one[0] for one in taken], [one[place] for one in taken])
        _judge(outcome, what, values, 1 / _hours(taken))
    outcome.failures += [
        f"{count} answers with status {status}" for status, count in found.statuses.items() if status != 200
    ]
    low, high = growth.low / MEGABYTE, growth.high / MEGABYTE
    log(f"serving: {growth.per_hour / MEGABYTE:+.1f} MB an hour ({low:+.1f} to {high:+.1f})")
    return outcome


def _hours(taken: Sequence[tuple[float, int, int, int]]) -> float:
    return (taken[-1][0] - taken[0][0]) / 3600


def _judge(outcome: Outcome, what: str, growth: Slope, most: float) -> None:
    if growth.low > most:
        outcome.failures.append(f"{what} grows by {growth.low:,.0f} to {growth.high:,.0f} an hour")


CHECKS = {
    "prompts": Check("A prompt of a million characters is refused in one line, or its end is read", check_prompts),
    "stories": Check("Memory, files and threads of a process stay the same over many stories", check_stories),
    "threads": Check("Stories in threads at once are those that each thread has alone", check_threads),
    "serving": Check("Memory, files and threads of a server stay the same at full load", check_serving),
}
