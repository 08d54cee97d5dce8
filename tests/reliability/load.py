"""Long prompts, many stories, many threads and an hour of serving: the answers stay right, and nothing grows."""

from __future__ import annotations

import gc
import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.serving.load import run_load
from benchmarks.serving.servers import Server, running, slmx_command
from runtimes.bundle.store import Bundle
from runtimes.engine.generator import Generator
from slm.console.errors import SlmxError
from slm.console.notice import Log
from slm.memory import resident_bytes
from tests.reliability.growth import MEGABYTE, Reading, check_growth
from tests.reliability.outcome import Check, Outcome

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "runtimes" / "bundles" / "nano"
PROMPT = "Once upon a time"
# Bytes by which a process may grow after its caches have filled.
MOST_OF_STORIES, MOST_OF_SERVING = 0.5e6, 3e6
# numpy keeps up to seven freed arrays of each size below so many bytes for the next ones.
NUMPY_SIZES, NUMPY_KEEPS = 1024, 7
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
        "emoji": "\N{GRINNING FACE}" * LETTERS,
        "line ends": "\n" * LETTERS,
    }
    outcome = Outcome(0, "prompts of 1,000,000 characters")
    for name, text in texts.items():
        for slide in (False, True):
            before, started = resident_bytes(), time.monotonic()
            try:
                story = generator.generate(text, max_tokens=4, seed=1, on_full="slide" if slide else "stop")
                fine = slide and len(story.ids) <= 4 and _end_is_read(generator, text)
            except SlmxError as error:
                fine = "\n" not in str(error) and not slide
            seconds, grown = time.monotonic() - started, resident_bytes() - before
            outcome.tried += 1
            if not fine or seconds > LONGEST or grown > 64 * len(text):
                outcome.failures.append(f"{name}, slide {slide}: {seconds:.1f} s, {grown / MEGABYTE:.0f} MB")
        log(f"prompts: {name}")
    return outcome


def _end_is_read(generator: Generator, text: str) -> bool:
    """Whether the ids that the model reads end with those of the end of a text, as many as half of the context."""
    end = generator.encode(text, "slide")[-generator.bundle.config.block_size // 2 :]
    return text.encode().endswith(generator.tokenizer.decode_bytes(end))


def check_stories(quick: bool, log: Log) -> Outcome:
    """Memory, open files and threads of a process that writes many short stories."""
    count = 600 if quick else 10_000
    generator = Generator(Bundle.open(NANO), "int8")
    _fill_numpy()
    readings = []
    for number in range(count):
        generator.generate(f"{PROMPT} number {number}", max_tokens=20, seed=number)
        if number % (count // 50) == 0:
            gc.collect()
            files, threads = (len(os.listdir(f"/proc/self/{folder}")) for folder in ("fd", "task"))
            readings.append(Reading(number, resident_bytes(), files, threads))
    outcome = Outcome(count, "stories in one process")
    check_growth(outcome, readings, count / 10, MOST_OF_STORIES, "stories", log)
    return outcome


def _fill_numpy() -> None:
    """Fills the lists of freed arrays of numpy, which otherwise grow as long as stories have arrays of new sizes."""
    for size in range(NUMPY_SIZES):
        held = [np.empty(size, np.uint8) for _ in range(NUMPY_KEEPS)]
        del held


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
    readings: list[Reading] = []
    done = threading.Event()

    def watch(server: Server) -> None:
        started = time.monotonic()
        while not done.wait(seconds / 200):
            threads = len(os.listdir(f"/proc/{server.process.pid}/task"))
            now = time.monotonic() - started
            readings.append(Reading(now, server.memory()["VmRSS"], server.descriptors(), threads))

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
    figures = {"statuses": found.statuses, "tokens": found.tokens, "seconds": seconds}
    outcome = Outcome(sum(found.statuses.values()), "answers of a server", figures=figures)
    check_growth(outcome, readings, seconds / 4, MOST_OF_SERVING, "s", log)
    outcome.failures += [
        f"{count} answers with status {status}" for status, count in found.statuses.items() if status != 200
    ]
    return outcome


CHECKS = {
    "prompts": Check("A prompt of a million characters is refused in one line, or its end is read", check_prompts),
    "stories": Check("Memory, files and threads of a process stay the same over many stories", check_stories),
    "threads": Check("Stories in threads at once are those that each thread has alone", check_threads),
    "serving": Check("Memory, files and threads of a server stay the same at full load", check_serving),
}
