"""Compares `slmx generate --prompts` with one batch: python -m benchmarks.studies.prompts_file [BUNDLE].

Both write the stories of the same prompts with the same seeds and slots, in turn. The rates are tokens per second of
wall time and of processor time. It also prints how many stories are the same in both, and in a run that was stopped.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from runtimes import load
from runtimes.engine.generator import Generator
from runtimes.prompts_file.runner import PromptsJob, write_stories
from runtimes.types import Settings, read_settings

NAMES = ("Lily", "Tom", "Anna", "Ben", "Mia", "Sam", "Max", "Sue")
BEGINNINGS = ("Once upon a time, {} saw a", "One day, {}", "{} was sad because", "The dog and {} went to the park.")
SEED = 7


def _timed(work: Callable[[], int]) -> tuple[float, float]:
    """Returns the tokens per second of wall time and of processor time."""
    wall, processor = time.perf_counter(), time.process_time()
    tokens = work()
    return tokens / (time.perf_counter() - wall), tokens / (time.process_time() - processor)


class _Rounds:
    def __init__(self, generator: Generator, folder: Path, count: int, max_tokens: int) -> None:
        self.generator, self.folder = generator, folder
        self.prompts = [BEGINNINGS[i % 4].format(NAMES[i // 4 % 8]) for i in range(count)]
        (folder / "prompts.txt").write_text("\n".join(self.prompts), "utf-8", newline="\n")
        self.settings = Settings(max_tokens=max_tokens, seed=SEED, logit_bias={}, stop=(), ban_words=(), logprobs=False)
        self.texts: dict[str, list[str]] = {}

    def batch(self) -> int:
        """Writes all stories with `Generator.batch`."""
        stories = self.generator.batch(self.prompts, *read_settings(**self.settings))
        self.texts["batch"] = [story.completion_text for story in stories]
        return sum(len(story.ids) for story in stories)

    def file(self, name: str = "file") -> int:
        """Writes all stories to a file."""
        out = self.folder / f"{name}.jsonl"
        job = PromptsJob(self.folder / "prompts.txt", out, self.settings, force=name == "file")
        write_stories(self.generator, job, lambda line: None)
        found = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
        self.texts[name] = [row["text"] for row in found]
        return sum(row["usage"]["completion_tokens"] for row in found)

    def stopped(self) -> int:
        """Continues a file of which half is there."""
        for suffix in ("", ".run"):
            lines = (self.folder / f"file.jsonl{suffix}").read_bytes().splitlines(keepends=True)
            kept = lines if suffix else lines[: len(lines) // 2]
            (self.folder / f"stopped.jsonl{suffix}").write_bytes(b"".join(kept))
        return self.file("stopped")

    def same(self, one: str, other: str) -> float:
        """Returns the share of stories that are equal."""
        pairs = zip(self.texts[one], self.texts[other], strict=True)
        return statistics.fmean(here == there for here, there in pairs)


def main(
    bundle: Annotated[str | None, typer.Argument(help="Default: the shipped nano.")] = None,
    variant: Annotated[str | None, typer.Option()] = None,
    count: int = 2000,
    max_tokens: int = 96,
    rounds: int = 3,
) -> None:
    """Print the rates of each round, their ratio, and the shares of equal stories."""
    with load(bundle, variant) as generator, tempfile.TemporaryDirectory() as folder:
        run = _Rounds(generator, Path(folder), count, max_tokens)
        found = []
        for number in range(rounds):
            works = (run.batch, run.file) if number % 2 == 0 else (run.file, run.batch)
            rates = {work.__name__: _timed(work) for work in works}
            (wall, processor), (file_wall, file_processor) = rates["batch"], rates["file"]
            found.append((file_wall / wall, file_processor / processor))
            typer.echo(
                f"round {number + 1}: batch {wall:,.0f} tokens/s ({processor:,.0f} of processor time), "
                f"file {file_wall:,.0f} ({file_processor:,.0f})"
            )
        first = run.texts["file"]
        run.file()
        run.texts["first"] = first
        run.stopped()
        wall, processor = (statistics.median(ratios) for ratios in zip(*found, strict=True))
        typer.echo(f"file / batch: {wall:.3f} of wall time, {processor:.3f} of processor time (medians)")
        for other in ("first", "batch", "stopped"):
            typer.echo(f"{generator.variant}: the file has the same stories as {other}: {run.same('file', other):.1%}")


if __name__ == "__main__":
    typer.run(main)
