"""From a corpus to a data set: clean, split, learn a tokenizer, write token shards; in bounded memory."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from slm.atomic import atomic_folder, lock_folder
from slm.data.cleaning import Cleaner
from slm.data.corpus import encode_stories
from slm.data.dataset import DATASET_FILE, FORMAT_VERSION, Dataset, ShardWriter, is_dataset
from slm.data.sources import Source, find_sources, hub_version, read_stories
from slm.errors import SlmxError
from slm.hashing import sha256_of
from slm.ownership import DATA_SET
from slm.presets import get_preset
from slm.tokenizer import JSON_FILE, RANKS_FILE, Tokenizer, load_merges, train_tokenizer

HELD_OUT_SHARE = 20
TOKENIZER_BYTES = 256 * 2**20
BATCH_STORIES = 2048
LARGEST_VOCABULARY = 65536
SMALLEST_VOCABULARY = 257  # the bytes and `<|endoftext|>`


@dataclass(frozen=True)
class PrepareSettings:
    """What to prepare and how; None means the preset's vocabulary, and a tokenizer learned from the text."""

    sources: tuple[str, ...]
    preset: str
    out: Path
    valid: tuple[str, ...] = ()
    licence: str = "not stated"
    field: str = "text"
    separator: str = "auto"
    vocab_size: int | None = None
    tokenizer: Path | None = None
    clean: bool = True
    force: bool = False

    def __post_init__(self) -> None:
        get_preset(self.preset)
        if self.vocab_size is not None and not SMALLEST_VOCABULARY <= self.vocab_size <= LARGEST_VOCABULARY:
            raise SlmxError(
                f"--vocab-size {self.vocab_size} is out of range; it is {SMALLEST_VOCABULARY} to {LARGEST_VOCABULARY}"
            )
        if self.vocab_size is not None and self.tokenizer is not None:
            raise SlmxError("--vocab-size and --tokenizer exclude each other: a tokenizer has its own vocabulary")


def is_held_out(story: str) -> bool:
    """Whether a story belongs to the validation side: one in twenty, decided by its own hash."""
    return int.from_bytes(hashlib.sha256(story.encode()).digest()[:4], "big") % HELD_OUT_SHARE == 0


def prepare(settings: PrepareSettings, console: Console) -> Dataset:
    """Write the data set in `out` and open it; one that is there and up to date is left as it is.

    Raises SlmxError for unusable sources, an empty side, and an `out` that holds anything else.
    """
    training = find_sources(settings.sources, settings.separator)
    validation = find_sources(settings.valid, settings.separator)
    console.print("checking the sources", highlight=False)
    request = {
        "sources": [_source_record("training", s) for s in training]
        + [_source_record("validation", s) for s in validation],
        "settings": _deciding_settings(settings),
    }
    out = settings.out
    with lock_folder(out, wait=True):
        if is_dataset(out) and not settings.force:
            return _open_if_same(out, request, console)
        with atomic_folder(out, DATA_SET, replace=settings.force) as folder:
            _Pipeline(settings, console, folder).run(training, validation, request)
    return Dataset.open(out)


def _deciding_settings(settings: PrepareSettings) -> dict[str, Any]:
    return {
        "preset": settings.preset,
        "licence": settings.licence,
        "field": settings.field,
        "vocab_size": settings.vocab_size or get_preset(settings.preset).config.vocab_size,
        "tokenizer": None if settings.tokenizer is None else sha256_of(settings.tokenizer / RANKS_FILE),
        "clean": settings.clean,
    }


def _source_record(side: str, source: Source) -> dict[str, Any]:
    if source.path is None:
        return {"side": side, "file": source.name, "kind": source.kind, "version": hub_version(source.name)}
    record = {"side": side, "file": source.path.name, "kind": source.kind, "bytes": source.path.stat().st_size}
    if source.separator:
        record["separator"] = source.separator
    return record | {"sha256": sha256_of(source.path)}


def _open_if_same(out: Path, request: dict[str, Any], console: Console) -> Dataset:
    dataset = Dataset.open(out)
    before = dataset.record
    differing = [name for name, value in request["settings"].items() if before["settings"].get(name) != value]
    if before["sources"] != request["sources"]:
        differing.insert(0, "sources")
    if differing:
        raise SlmxError(
            f"{out}: holds a data set made with other {', '.join(differing)}; choose another --out, or --force"
        )
    console.print(f"{out}: up to date, {len(dataset.train.ids):,} training tokens", highlight=False)
    return dataset


class _Pipeline:
    """One preparation: the sources once into a spool of clean stories, that into shards."""

    def __init__(self, settings: PrepareSettings, console: Console, folder: Path) -> None:
        self.settings = settings
        self.console = console
        self.folder = folder
        self.spools = {side: folder / f"{side}.spool" for side in ("train", "valid")}
        self.counts = {"train": 0, "valid": 0}
        self.bytes = {"train": 0, "valid": 0}

    def run(self, training: list[Source], validation: list[Source], request: dict[str, Any]) -> None:
        """Fill the folder; the caller publishes it."""
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"))
        with Progress(*columns, TimeRemainingColumn(), console=self.console) as progress:
            cleaning = self._spool(training, validation, progress)
            self._need_stories()
            tokenizer, merges = self._tokenizer(progress)
            tokenizer.save(self.folder, merges)
            sides = {side: self._shards(side, tokenizer, progress) for side in self.spools}
        for spool in self.spools.values():
            spool.unlink()
        names = [RANKS_FILE, JSON_FILE, *(shard for side in sides.values() for shard in side["shards"])]
        record = {
            "format_version": FORMAT_VERSION,
            **request,
            "licence": self.settings.licence,
            "vocab_size": tokenizer.vocab_size,
            "cleaning": cleaning,
            "sides": sides,
            "files": {
                name: {"bytes": (self.folder / name).stat().st_size, "sha256": sha256_of(self.folder / name)}
                for name in names
            },
        }
        (self.folder / DATASET_FILE).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        self._report(cleaning, sides)

    def _spool(self, training: list[Source], validation: list[Source], progress: Progress) -> dict[str, dict[str, int]]:
        """Clean and split the stories into one JSON string a line; returns the counts of each side's sources."""
        held = Cleaner(thorough=False)
        cleaner = Cleaner(self.settings.clean, held_out=held.seen)
        with (
            self.spools["train"].open("w", encoding="utf-8") as train,
            self.spools["valid"].open("w", encoding="utf-8") as valid,
        ):
            for story in self._clean(held, validation, progress):
                self._put(valid, "valid", story)
            for story in self._clean(cleaner, training, progress):
                if not validation and is_held_out(story):
                    self._put(valid, "valid", story)
                else:
                    self._put(train, "train", story)
        return {"training": asdict(cleaner.counts), "validation": asdict(held.counts)}

    def _clean(self, cleaner: Cleaner, sources: list[Source], progress: Progress) -> Iterator[str]:
        for source in sources:
            plain = source.path is not None and source.kind == "text" and source.path.suffix not in (".gz", ".zst")
            total = source.path.stat().st_size if plain and source.path is not None else None
            task = progress.add_task(f"reading {Path(source.name).name}", total=total, figures="")
            before = cleaner.counts.bytes_before
            for number, story in enumerate(cleaner(read_stories([source], self.settings.field))):
                if number % 256 == 0:
                    figures = f"{cleaner.counts.read:,} stories"
                    progress.update(task, completed=cleaner.counts.bytes_before - before, figures=figures)
                yield story
            read = cleaner.counts.bytes_before - before
            progress.update(
                task, completed=total or read, total=total or read, figures=f"{cleaner.counts.read:,} stories"
            )

    def _put(self, file: Any, side: str, story: str) -> None:  # noqa: ANN401
        file.write(json.dumps(story, ensure_ascii=False) + "\n")
        self.counts[side] += 1
        self.bytes[side] += len(story.encode())

    def _need_stories(self) -> None:
        total = sum(self.counts.values())
        if not self.counts["valid"]:
            raise SlmxError(
                f"no story for validation: {total} stories are too few to hold one in {HELD_OUT_SHARE} out; "
                "give some with --valid"
            )
        if not self.counts["train"]:
            raise SlmxError("no story to train on: every one is held out for validation, or was dropped")

    def _stories(self, side: str) -> Iterator[str]:
        with self.spools[side].open(encoding="utf-8", newline="\n") as file:
            for line in file:
                yield json.loads(line)

    def _tokenizer(self, progress: Progress) -> tuple[Tokenizer, list[tuple[str, str]]]:
        if self.settings.tokenizer is not None:
            return Tokenizer.load(self.settings.tokenizer), load_merges(self.settings.tokenizer)
        wanted = _deciding_settings(self.settings)["vocab_size"]
        every = max(1, math.ceil(self.bytes["train"] / TOKENIZER_BYTES))
        task = progress.add_task(f"learning {wanted:,} tokens", total=None, figures="")
        texts = islice(self._stories("train"), None, None, every)
        tokenizer, merges = train_tokenizer(texts, wanted)
        figures = f"from {'all stories' if every == 1 else f'one story in {every}'}"
        progress.update(task, total=1, completed=1, figures=figures)
        if tokenizer.vocab_size < wanted:
            self.console.print(
                f"the text fills only {tokenizer.vocab_size:,} of {wanted:,} tokens: the model gets as many",
                highlight=False,
            )
        return tokenizer, merges

    def _shards(self, side: str, tokenizer: Tokenizer, progress: Progress) -> dict[str, Any]:
        task: TaskID = progress.add_task(f"encoding {side}", total=self.counts[side], figures="")
        writer = ShardWriter(self.folder, side)
        stories = self._stories(side)
        while batch := list(islice(stories, BATCH_STORIES)):
            writer.add(encode_stories(batch, tokenizer))
            progress.update(task, advance=len(batch), figures=f"{writer.tokens:,} tokens")
        needed = get_preset(self.settings.preset).config.block_size + 1
        if writer.tokens < needed:
            hint = "" if side == "train" or self.settings.valid else ", or name a source with --valid"
            raise SlmxError(
                f"the {side} side is {writer.tokens} tokens, shorter than one context of {needed - 1}: "
                f"give more text{hint}, or a preset with a smaller block size"
            )
        return writer.close()

    def _report(self, cleaning: dict[str, dict[str, int]], sides: dict[str, dict[str, Any]]) -> None:
        for side, counts in cleaning.items():
            if counts["read"]:
                dropped = ", ".join(
                    f"{counts[cause]:,} {cause.replace('_', ' ')}"
                    for cause in ("empty", "truncated", "duplicates", "in_validation")
                )
                self.console.print(
                    f"{side} sources: {counts['read']:,} stories, {counts['kept']:,} kept; "
                    f"dropped: {dropped}; mojibake repaired in {counts['repaired']:,}",
                    soft_wrap=True,
                    highlight=False,
                )
        for side, entry in sides.items():
            self.console.print(
                f"{side}: {entry['stories']:,} stories, {entry['tokens']:,} tokens of {entry['bytes_per_token']:.2f} "
                f"bytes, {len(entry['shards'])} shard(s)",
                soft_wrap=True,
                highlight=False,
            )
