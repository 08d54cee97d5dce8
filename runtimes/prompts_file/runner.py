"""Writes the stories of all lines, several at the same time, in the order of the lines."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runtimes.engine.batcher import Batcher
from runtimes.engine.generator import SLOTS, Generator
from runtimes.engine.sampler import system_seed
from runtimes.engine.scoring import TextScore
from runtimes.engine.story import Story
from runtimes.prompts_file.lines import LineFields, default_fields, read_line
from runtimes.prompts_file.progress import Progress
from runtimes.prompts_file.reader import TEXT_SUFFIXES, Line, PromptsReader, Shard, is_input
from runtimes.prompts_file.record import SUFFIX, Position
from runtimes.prompts_file.units import Unit, as_row, begin_units
from runtimes.prompts_file.writer import StoriesFile
from runtimes.requests.fields import LARGEST_SEED
from runtimes.types import Settings
from slm.console.counted import counted
from slm.console.errors import SlmxError, UsageError
from slm.console.notice import Log
from slm.memory import memory_bytes
from slm.storage.locks import lock_folder

WINDOW = 4  # stories of each slot that are begun and not yet in the file
CACHE_SHARE = 4  # the caches of all slots take at most the available memory divided by this


@dataclass(frozen=True)
class PromptsJob:
    """What `slmx generate --prompts` is asked for.

    Attributes:
        prompts: The file of prompts; `-` is standard input.
        out: The file of stories.
        settings: The settings of a line that has no others.
        n: The number of stories for each prompt.
        shard: The part of the file; None is all of it.
        force: Whether stories of another run are replaced.

    Raises:
        UsageError: A line cannot have these settings, a shard has no seed, the file of prompts would be replaced, or
            the file of stories is a folder or has the name of a text.
    """

    prompts: Path
    out: Path
    settings: Settings
    n: int = 1
    shard: Shard | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if self.shard is not None and self.settings.get("seed") is None:
            raise UsageError("--shard needs --seed: give all shards the same, so that together they are one run")
        if (self.settings.get("seed") or 0) > LARGEST_SEED:
            raise UsageError(f"--seed must be at most {LARGEST_SEED} with --prompts, not {self.settings['seed']}")
        if os.path.isdir(self.out):
            raise UsageError(f"--out {self.out}: a folder; name a file, such as {self.out / 'stories.jsonl'}")
        written = (self.out, self.out.with_name(self.out.name + SUFFIX))
        if any(is_input(self.prompts, path) for path in written):
            raise UsageError(f"--out {self.out}: it would replace the file of prompts; choose another --out")
        if self.out.suffix in TEXT_SUFFIXES:
            raise UsageError(f"--out {self.out}: its lines are JSON; name it {self.out.with_suffix('.jsonl')}")
        self.defaults()

    def defaults(self) -> LineFields:
        """Returns the fields of a line that has no others."""
        return default_fields(self.settings, self.n)


def best_slots(generator: Generator) -> int:
    """Returns how many stories to write at the same time: as many as a pool has, if the memory is enough."""
    memory, row = memory_bytes(), generator.bundle.config.cache_bytes
    return SLOTS if memory is None else max(1, min(SLOTS, memory // CACHE_SHARE // row))


def write_stories(generator: Generator, job: PromptsJob, log: Log) -> int:
    """Writes the stories of a file of prompts. A run that was stopped goes on where it was.

    Args:
        generator: The model.
        job: What to write.
        log: Called with each line about the end of the run.

    Returns:
        The number of rows that are errors, those of earlier runs included.

    Raises:
        SlmxError: The output is not of this run, its disk is full, another process writes it, or the input is another.
        OSError: The input cannot be read.
        KeyboardInterrupt: Ctrl-C was pressed. A line said what to do next.
        SystemExit: A signal ended the run, in the same way.
    """
    out = job.out.resolve()
    with lock_folder(out):
        reader = PromptsReader(job.prompts, job.shard, out.parent)
        try:
            settings = {
                "bundle": generator.bundle.manifest_sha256,
                "variant": generator.variant,
                "allow_special": generator.allow_special,
                "lines": "json" if reader.is_json else "text",
                "shard": None if job.shard is None else f"{job.shard.number}/{job.shard.count}",
                "part": None if job.shard is None else [reader.start, reader.stop],
                "seed": job.settings.get("seed"),
                **job.defaults(),
            }
            file = StoriesFile(out, settings, system_seed(), job.force)
            waiting = _begin(reader, job) if file.last is None else _read_again(reader, file, file.last)
            file.open()
            try:
                run = _Run(generator, job, reader, file, waiting)
                run.write()
                file.begin()  # a part of the input may have no lines
            except (KeyboardInterrupt, SystemExit):
                file.close()
                stories, command = file.kept()
                log(f"stopped with {stories} in {job.out}; {command} goes on")
                raise
            finally:
                file.close()
        finally:
            reader.close()
    for line in run.summary():
        log(line)
    if file.done.failed:
        log(f"{file.done.failed:,} failed, the first in line {file.done.first_failed}: their rows have an error")
    return file.done.failed


def _begin(reader: PromptsReader, job: PromptsJob) -> deque[Line]:
    """Returns the first line that is not blank. Only a part of a file may have none.

    Raises:
        SlmxError: There is none.
    """
    first = next((line for line in iter(reader.take, None) if not line.is_blank), None)
    if first is not None:
        return deque([first])
    if job.shard is None or reader.is_empty:
        line = "JSON: a text, or an object with a prompt" if reader.is_json else "a prompt"
        raise SlmxError(f"{reader.name}: no prompt in it; each line must hold {line}")
    return deque()


def _read_again(reader: PromptsReader, file: StoriesFile, last: Position) -> deque[Line]:
    """Reads the lines that an earlier run has read. Returns those whose stories are not all known to be written.

    Raises:
        SlmxError: They are not the same lines.
    """
    waiting: deque[Line] = deque()
    while reader.taken < last.line:
        line = reader.take()
        if line is None:
            break
        if line.number >= file.done.line and not line.is_blank:
            waiting.append(line)
    if (reader.taken, reader.sha256) != (last.line, last.sha256):
        raise SlmxError(
            f"{file.path}: its stories are of another input: the first {last.line:,} lines of {reader.name} are "
            "not the same; choose another --out, or add --force to begin anew"
        )
    return waiting


class _Run:
    """A run in progress."""

    def __init__(
        self, generator: Generator, job: PromptsJob, reader: PromptsReader, file: StoriesFile, waiting: deque[Line]
    ) -> None:
        self._generator = generator
        self._job = job
        self._defaults = job.defaults()
        self._reader = reader
        self._file = file
        self._waiting = waiting
        self._slots = min(best_slots(generator), generator.slots)
        self._batcher = Batcher(generator, self._slots, prefill_chunk=None)
        self._units: deque[Unit] = deque()  # in the order of their rows
        self._begun: deque[Story | TextScore] = deque()  # not yet in the batcher
        self._after = (file.done.line, file.done.index)
        total = None if reader.stop is None else reader.stop - reader.start
        self._progress = Progress(total, max(0, file.done.line - reader.start))

    def write(self) -> None:
        """Writes until the input ends; raises as `write_stories`."""
        try:
            while True:
                self._fill()
                if self._batcher.running:
                    self._batcher.step()
                if not self._write_ready() and not self._batcher.running and not self._begun:
                    return
        finally:
            self._progress.end()

    def _fill(self) -> None:
        """Begins stories until all slots are taken, or too many wait to be written, or no line is there."""
        while self._batcher.free:
            if self._begun:
                work = self._begun.popleft()
                if isinstance(work, Story):
                    work.start()
                self._batcher.add(work)
                continue
            idle = not self._batcher.running and not self._units
            if len(self._units) >= WINDOW * self._slots or not self._take(wait=idle):
                return

    def _take(self, wait: bool) -> bool:
        """Takes a line and begins its stories. Returns False if there is none."""
        line = self._waiting.popleft() if self._waiting else self._reader.take(wait)
        if line is None:
            return False
        if line.is_blank:
            return True
        asked = read_line(line, self._reader.is_json, self._defaults)
        units = begin_units(asked, self._generator, self._file.seed, self._job.n)
        units = [unit for unit in units if (line.number, unit.index) > self._after]
        self._units += units
        scores = {id(unit.score): unit.score for unit in units if unit.score is not None and not unit.score.done}
        self._begun += scores.values()
        self._begun += [unit.story for unit in units if unit.story is not None]
        return True

    def _write_ready(self) -> bool:
        """Writes the rows that are ready and have none before them that is not. Returns whether there were any."""
        rows = []
        while self._units and self._units[0].ready:
            unit = self._units.popleft()
            rows.append(as_row(unit, self._generator))
            self._progress.tokens += 0 if unit.story is None else len(unit.story.ids)
        if rows:
            self._file.write(rows, Position(self._reader.taken, self._reader.sha256))
            self._progress.rows += len(rows)
            self._progress.show(self._file.done.line - self._reader.start, self._file.done.failed)
        return bool(rows)

    def summary(self) -> Iterator[str]:
        """Yields lines about what the run has done."""
        done, progress = self._file.done, self._progress
        if done.rows and not progress.rows:
            yield f"nothing to do: {self._job.out} has all {counted(done.rows, 'row')}"
            return
        new = "" if progress.rows == done.rows else f" ({progress.rows:,} of them new)"
        yield (
            f"{counted(done.rows, 'row')} in {self._job.out}{new}, {counted(progress.tokens, 'token')}, "
            f"{progress.rate:,.0f} tokens/s "
            f"({self._generator.variant}, seed {self._file.seed}, {min(self._slots, done.rows)} at the same time)"
        )
        yield f"{self._job.out}{SUFFIX} lets the same command go on with further prompts; delete it if there are none"
