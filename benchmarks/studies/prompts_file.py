"""Compares `slmx generate --prompts` with one batch: python -m benchmarks.studies.prompts_file.

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

from benchmarks.program import run
from benchmarks.serving.load import prompt
from benchmarks.studies.batches import whole_batch
from benchmarks.studies.results import Out, Rounds, write_results
from runtimes import load
from runtimes.engine.generator import Generator
from runtimes.prompts_file.runner import PromptsJob, write_stories
from runtimes.types import Settings, read_settings

SEED = 7


def _timed(work: Callable[[], int]) -> tuple[float, float]:
    """Returns the tokens per second of wall time and of processor time of work that returns its tokens."""
    wall, processor = time.perf_counter(), time.process_time()
    tokens = work()
    return tokens / (time.perf_counter() - wall), tokens / (time.process_time() - processor)


class _Sides:
    def __init__(self, generator: Generator, folder: Path, count: int, max_tokens: int) -> None:
        self.generator, self.folder = generator, folder
        self.prompts = [prompt(number) for number in range(count)]
        (folder / "prompts.txt").write_text("\n".join(self.prompts), "utf-8", newline="\n")
        self.settings = Settings(max_tokens=max_tokens, seed=SEED, logit_bias={}, stop=(), ban_words=(), logprobs=False)
        self.texts: dict[str, list[str]] = {}

    def batch(self) -> int:
        """Writes all stories with `Generator.batch`."""
        stories = whole_batch(self.generator, self.prompts, *read_settings(**self.settings))
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
    bundle: Annotated[str | None, typer.Option(help="The bundle that writes; default: the shipped nano.")] = None,
    variant: Annotated[str | None, typer.Option(help="Its variant; default: that of the bundle.")] = None,
    count: Annotated[int, typer.Option(min=2, help="The number of prompts.")] = 2000,
    max_tokens: Annotated[int, typer.Option(min=1, help="The most tokens of a story.")] = 96,
    rounds: Rounds = 3,
    out: Out = None,
) -> None:
    """Print the rates of each round, their ratio, and the shares of equal stories."""
    with load(bundle, variant) as generator, tempfile.TemporaryDirectory() as folder:
        used = {"bundle": generator.bundle.path.name, "variant": generator.variant}
        sides = _Sides(generator, Path(folder), count, max_tokens)
        taken = []
        for number in range(rounds):
            works = (sides.batch, sides.file) if number % 2 == 0 else (sides.file, sides.batch)
            rates = {work.__name__: _timed(work) for work in works}
            taken.append(rates)
            told = [
                f"{name} {wall:,.0f} tokens/s ({own:,.0f} of processor time)" for name, (wall, own) in rates.items()
            ]
            typer.echo(f"round {number + 1}: {', '.join(told)}")
        first = sides.texts["file"]
        sides.file()
        sides.texts["first"] = first
        sides.stopped()
        ratios = [
            statistics.median(rates["file"][clock] / rates["batch"][clock] for rates in taken) for clock in (0, 1)
        ]
        typer.echo(f"file / batch: {ratios[0]:.3f} of wall time, {ratios[1]:.3f} of processor time (medians)")
        same = {other: sides.same("file", other) for other in ("first", "batch", "stopped")}
        for other, share in same.items():
            typer.echo(f"{generator.variant}: the file has the same stories as {other}: {share:.1%}")
    settings = {**used, "count": count, "max_tokens": max_tokens, "rounds": rounds}
    write_results(out, settings, {"tokens_per_second": taken, "file / batch": ratios, "same stories": same})


if __name__ == "__main__":
    run(main)
