"""Measures speed and peak memory of slmx prepare on a large generated corpus.

python -m benchmarks.studies.prepare_memory
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.child import output_of
from benchmarks.program import run
from benchmarks.studies.memory import peak_of, with_peak
from benchmarks.studies.results import Out, write_results
from slm.presets import get_preset
from slm.storage.file_names import DATASET_FILE
from slm.tokenizers.settings import END_OF_TEXT

WORDS = 60_000
STORY_WORDS = 170
BATCH = 2_000


def _words(random: np.random.Generator) -> list[str]:
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    odds = np.arange(len(letters), 0, -1) / sum(range(len(letters) + 1))
    lengths = random.integers(2, 11, WORDS)
    return ["".join(random.choice(letters, length, p=odds)) for length in lengths]


def _stories(random: np.random.Generator) -> Iterator[str]:
    """Yields stories whose words follow Zipf's law. 1 in 50 is repeated, 1 in 50 has mojibake, 1 in 100 is cut off."""
    words = np.array(_words(random))
    while True:
        ranks = np.minimum(random.zipf(1.3, (BATCH, STORY_WORDS)), WORDS) - 1
        for number, row in enumerate(ranks):
            story = " ".join(words[row]).capitalize() + "."
            if number % 50 == 1:
                yield story
            if number % 50 == 2:
                story = f"â€œ{story}â€\x9d"
            if number % 100 == 3:
                story = story[:-1] + ". And then"
            yield story


def generate(path: Path, size: int) -> int:
    """Writes a corpus of at least `size` bytes and returns its number of stories."""
    count = written = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for story in _stories(np.random.default_rng(1)):
            written += file.write(f"{story}\n{END_OF_TEXT}\n")
            count += 1
            if written >= size:
                return count
    return count


def main(
    gigabytes: Annotated[float, typer.Option(min=0.001, help="Size of the corpus in GB.")] = 2.0,
    preset: Annotated[str, typer.Option(help="The preset whose vocabulary size is used.")] = "nano",
    out: Out = None,
) -> None:
    """Generate a corpus, prepare it in a child process, and print the figures."""
    get_preset(preset)
    with tempfile.TemporaryDirectory() as folder:
        corpus, data = Path(folder) / "stories.txt", Path(folder) / "set"
        stories = generate(corpus, int(gigabytes * 1e9))
        size = corpus.stat().st_size
        started = time.perf_counter()
        command = with_peak("prepare", str(corpus), "--preset", preset, "--out", str(data))
        peak = peak_of(output_of(command, "slmx prepare", shows_errors=True))
        seconds = time.perf_counter() - started
        record = json.loads((data / DATASET_FILE).read_text("utf-8"))
    splits = record["splits"].values()
    results = {
        "corpus_bytes": size,
        "stories": stories,
        "seconds": round(seconds, 1),
        "megabytes_per_second": round(size / 1e6 / seconds, 2),
        "peak_memory_bytes": peak,
        "cleaning": record["cleaning"]["train"],
        "tokens": sum(split["tokens"] for split in splits),
        "shards": sum(len(split["shards"]) for split in splits),
    }
    rows = [f"| {name} | {value} |" for name, value in results.items()]
    typer.echo("\n".join(["| figure | value |", "|---|---|", *rows]))
    write_results(out, {"preset": preset}, results)


if __name__ == "__main__":
    run(main)
