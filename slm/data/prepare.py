"""Prepares a data set from a corpus in bounded memory: cleans, splits, learns a tokenizer, writes token shards."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from slm.console.counted import count_stories, counted
from slm.console.errors import NeedsForceError, SlmxError, UsageError
from slm.console.notice import print_notice
from slm.console.plain_text import as_plain_text
from slm.data.cleaning import RULES, Cleaner, Cleaning, repair, story_key
from slm.data.cleaning_report import cleaning_line, too_few, truncated_line
from slm.data.corpus import encode_stories
from slm.data.dataset import DATA_SET_LISTING, FORMAT_VERSION, SPLITS, Dataset, ShardWriter, check_context, is_dataset
from slm.data.earlier_request import differences
from slm.data.files import compression_of
from slm.data.sources import Source, find_sources, read_stories
from slm.data.stories import bound_words
from slm.data.tables import hub_version
from slm.folder_kind import Kind, find_checkpoint, find_kind, find_shipped, near_model, shipped_names
from slm.presets import LARGEST_VOCABULARY, SMALLEST_VOCABULARY, get_preset
from slm.storage.atomic import atomic_folder
from slm.storage.file_names import DATASET_FILE, JSON_FILE, RANKS_FILE
from slm.storage.hashing import sha256_of
from slm.storage.locks import clear_leftover, lock_folder
from slm.tokenizers.listed import ListedTokenizer, load_listed
from slm.tokenizers.tokenizer import Tokenizer, train_tokenizer

HELD_OUT_SHARE = 20
GPT2_FILES = ("vocab.json", "merges.txt")  # of a Hugging Face tokenizer without a tokenizer.json
TOKENIZER_BYTES = 256 * 2**20
BATCH_STORIES = 2048
FEW_STORIES = 20  # for validation
MOST_BARS = 8  # more files than this share one line of progress


@dataclass(frozen=True)
class PrepareSettings:
    """What to prepare and how.

    Attributes:
        sources: The sources of the training stories.
        preset: Name of the model shape, which gives the vocabulary.
        out: Folder of the data set.
        valid: The sources of the validation stories; empty to hold out one training story in `HELD_OUT_SHARE`.
        licence: Licence of the text, for the record.
        field: Column of a table that holds the stories.
        separator: What separates the stories of a text: `auto`, `endoftext` or `blank`.
        vocab_size: Size of the vocabulary; None for the preset's.
        tokenizer: Checkpoint, run, data set or bundle whose tokenizer to use; None to learn one from the training
            stories.
        clean: Whether to repair mojibake and drop truncated training stories.
        force: Whether to replace a data set in `out`.
        context: Tokens that the model will read at once. Each split that is written must be longer.
        any_rules: Whether a data set of earlier rules of cleaning is up to date, as for a run that goes on.

    Raises:
        UsageError: The preset is unknown, or a setting is out of range.
    """

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
    context: int = 1
    any_rules: bool = False

    def __post_init__(self) -> None:
        get_preset(self.preset)
        if self.vocab_size is not None and not SMALLEST_VOCABULARY <= self.vocab_size <= LARGEST_VOCABULARY:
            raise UsageError(
                f"--vocab-size {self.vocab_size} is out of range; it is {SMALLEST_VOCABULARY} to {LARGEST_VOCABULARY}"
            )
        if self.vocab_size is not None and self.tokenizer is not None:
            raise UsageError("--vocab-size and --tokenizer exclude each other: a tokenizer has its own vocabulary")


def is_held_out(story: str) -> bool:
    """Returns whether a story is held out for validation, by its hash. One story in `HELD_OUT_SHARE` is."""
    return (story_key(story) >> 32) % HELD_OUT_SHARE == 0


def prepare(settings: PrepareSettings, console: Console) -> Dataset:
    """Writes the data set in `out` and opens it. A data set that is up to date is not written again.

    Args:
        settings: What to prepare.
        console: Where progress and counts are shown.

    Returns:
        The data set in `out`.

    Raises:
        NeedsForceError: `out` holds a data set that was made otherwise.
        SlmxError: A source is unusable, a split is too short, or `out` holds something else.
    """
    given = None if settings.tokenizer is None else _given_tokenizer(settings.tokenizer)
    with console.status("checking the sources"):
        training = find_sources(settings.sources, settings.separator, "train", partial(print_notice, console))
        validation = find_sources(settings.valid, settings.separator, "valid", partial(print_notice, console))
        request = {
            "sources": [_source_record("train", s) for s in training]
            + [_source_record("valid", s) for s in validation],
            "settings": _deciding_settings(settings, given),
        }
    out = settings.out
    if is_dataset(out) and not settings.force:  # no lock, because an up-to-date data set may be read-only
        clear_leftover(out)
        return _open_if_same(settings, request, console)
    with lock_folder(out, wait=True):
        if is_dataset(out) and not settings.force:  # another process wrote it meanwhile
            return _open_if_same(settings, request, console)
        with atomic_folder(out, DATA_SET_LISTING, replace=settings.force) as folder:
            _Pipeline(settings, given, console, folder).run(training, validation, request)
    return Dataset.open(out)


def _vocab_size(settings: PrepareSettings) -> int:
    return settings.vocab_size or get_preset(settings.preset).config.vocab_size


def _deciding_settings(settings: PrepareSettings, given: ListedTokenizer | None) -> dict[str, Any]:
    return {
        "preset": settings.preset,
        "licence": settings.licence,
        "field": settings.field,
        "vocab_size": _vocab_size(settings),
        "tokenizer": None if given is None else _tokenizer_record(given),
        "clean": settings.clean,
        "rules": RULES,
    }


def _given_tokenizer(path: Path) -> ListedTokenizer:
    """Reads the tokenizer of a checkpoint, a run, a data set or a bundle."""
    if find_shipped(path) is None and (find_kind(path) is Kind.MISSING or _is_hugging_face(path)):
        problem = "a Hugging Face tokenizer" if path.exists() else f"no such file or folder{near_model(path)}"
        raise SlmxError(
            f"{path}: {problem}; --tokenizer names a slmx checkpoint, run, data set or bundle, or a shipped model "
            f"({', '.join(shipped_names())}); for a Hugging Face tokenizer, slmx import SOURCE --out NEW takes a model "
            "that has it, and then --tokenizer NEW"
        )
    given = load_listed(path if (path / RANKS_FILE).is_file() else find_checkpoint(path))
    if given.tokenizer.vocab_size > LARGEST_VOCABULARY:
        raise SlmxError(
            f"{given.folder}: a vocabulary of {given.tokenizer.vocab_size:,} does not fit the 16-bit ids of a data "
            f"set; use one of at most {LARGEST_VOCABULARY:,} tokens, which slmx import SOURCE --tokenizer nano makes"
        )
    return given


def _is_hugging_face(path: Path) -> bool:
    """Returns whether a path is a folder with a Hugging Face tokenizer and no model, or a file of its tokenizer."""
    folder = path if path.is_dir() else path.parent
    if find_kind(folder) is not Kind.FOLDER or (path != folder and path.name not in (JSON_FILE, *GPT2_FILES)):
        return False
    has_files = (folder / JSON_FILE).is_file() or all((folder / name).is_file() for name in GPT2_FILES)
    return has_files and not (folder / RANKS_FILE).is_file()


def _tokenizer_record(given: ListedTokenizer) -> str | dict[str, Any]:
    """Returns what identifies a tokenizer: the SHA-256 of its file, and its settings if they are not the defaults."""
    listed = given.tokenizer.settings.listed()
    return {"sha256": given.sha256, **listed} if listed else given.sha256


def _source_record(split: str, source: Source) -> dict[str, Any]:
    if source.path is None:
        return {"split": split, "file": source.name, "kind": source.kind, "version": hub_version(source.name)}
    # The name of a pipe differs from run to run.
    file = source.path.name if source.copy is None else "-"
    record = {"split": split, "file": file, "kind": source.kind, "bytes": source.path.stat().st_size}
    if source.separator:
        record["separator"] = source.separator
    return record | {"sha256": sha256_of(source.path)}


def _open_if_same(settings: PrepareSettings, request: dict[str, Any], console: Console) -> Dataset:
    out = settings.out
    dataset = Dataset.open(out)
    if made := differences(dataset.record, request, settings.any_rules):
        raise NeedsForceError(
            f"{out}: holds a data set made {', '.join(made)}; choose another --out, or --force to replace it"
        )
    print_notice(console, f"{out}: up to date, {len(dataset.train.ids):,} training tokens")
    return dataset


class _Pipeline:
    """One preparation. It writes a file of clean stories for each split, and then makes the shards from these files."""

    def __init__(
        self, settings: PrepareSettings, given: ListedTokenizer | None, console: Console, folder: Path
    ) -> None:
        self.settings = settings
        self.given = given
        self.console = console
        self.folder = folder
        self.spools = {split: folder / f"{split}.spool" for split in SPLITS}
        self.counts = dict.fromkeys(SPLITS, 0)
        self.bytes = dict.fromkeys(SPLITS, 0)

    def run(self, training: list[Source], validation: list[Source], request: dict[str, Any]) -> None:
        """Fills the folder. The caller publishes it."""
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"))
        with Progress(*columns, TimeRemainingColumn(), console=self.console) as progress:
            cleaning = self._spool(training, validation, progress)
            self._need_stories(Cleaning(**cleaning["train"]), training)
            tokenizer, merges = self._tokenizer(progress)
            tokenizer.save(self.folder, merges)
            splits = {split: self._shards(split, tokenizer, progress) for split in SPLITS}
        for spool in self.spools.values():
            spool.unlink()
        names = [RANKS_FILE, JSON_FILE, *(shard for entry in splits.values() for shard in entry["shards"])]
        record = {
            "format_version": FORMAT_VERSION,
            **request,
            "licence": self.settings.licence,
            "vocab_size": tokenizer.vocab_size,
            **tokenizer.settings.listed(),
            "cleaning": cleaning,
            "splits": splits,
            "files": {
                name: {"bytes": (self.folder / name).stat().st_size, "sha256": sha256_of(self.folder / name)}
                for name in names
            },
        }
        (self.folder / DATASET_FILE).write_text(json.dumps(record, indent=1) + "\n", "utf-8", newline="\n")
        self._report(cleaning, splits, {"train": training, "valid": validation})

    def _spool(self, training: list[Source], validation: list[Source], progress: Progress) -> dict[str, dict[str, int]]:
        """Writes each split's clean stories, one JSON string per line, and returns the counts of each split."""
        held = Cleaner(thorough=False)
        held_out: set[int] = set()
        with (
            self.spools["train"].open("w", encoding="utf-8", newline="\n") as train,
            self.spools["valid"].open("w", encoding="utf-8", newline="\n") as valid,
        ):
            for story in self._clean(held, validation, progress):
                self._put(valid, "valid", story)
                held_out |= {story_key(story), story_key(repair(story).strip())}  # the training stories are repaired
            cleaner = Cleaner(self.settings.clean, held_out=held_out)
            for story in self._clean(cleaner, training, progress):
                if not validation and is_held_out(story):
                    self._put(valid, "valid", story)
                else:
                    self._put(train, "train", story)
        return {"train": asdict(cleaner.counts), "valid": asdict(held.counts)}

    def _clean(self, cleaner: Cleaner, sources: list[Source], progress: Progress) -> Iterator[str]:
        if len(sources) <= MOST_BARS:
            for source in sources:
                yield from self._clean_source(cleaner, source, progress)
            return
        task = progress.add_task(f"reading {len(sources):,} files", total=len(sources), figures="")
        for number, source in enumerate(sources, start=1):
            yield from cleaner(read_stories([source], self.settings.field, counts=cleaner.counts))
            progress.update(task, completed=number, figures=count_stories(cleaner.counts.read))

    def _clean_source(self, cleaner: Cleaner, source: Source, progress: Progress) -> Iterator[str]:
        plain = source.path is not None and source.kind == "text" and compression_of(source.path) is None
        total = source.path.stat().st_size if plain and source.path is not None else None
        task = progress.add_task(f"reading {escape(as_plain_text(Path(source.name).name))}", total=total, figures="")
        before = cleaner.counts.bytes_before
        stories = read_stories([source], self.settings.field, counts=cleaner.counts)
        for number, story in enumerate(cleaner(stories)):
            if number % 256 == 0:
                figures = count_stories(cleaner.counts.read)
                progress.update(task, completed=cleaner.counts.bytes_before - before, figures=figures)
            yield story
        read = cleaner.counts.bytes_before - before
        progress.update(task, completed=total or read, total=total or read, figures=count_stories(cleaner.counts.read))

    def _put(self, file: TextIO, split: str, story: str) -> None:
        file.write(json.dumps(story, ensure_ascii=False) + "\n")
        self.counts[split] += 1
        self.bytes[split] += len(story.encode())

    def _need_stories(self, cleaning: Cleaning, training: list[Source]) -> None:
        if self.counts["train"] and self.counts["valid"]:
            return
        if not self.counts["valid"] and self.settings.valid:
            raise SlmxError("no story for validation: every story of --valid was dropped; give others")
        raise too_few(cleaning, training, self.settings.separator, bool(self.settings.valid), HELD_OUT_SHARE)

    def _clean_stories(self, split: str) -> Iterator[str]:
        with self.spools[split].open(encoding="utf-8", newline="\n") as file:
            for line in file:
                yield json.loads(line)

    def _tokenizer(self, progress: Progress) -> tuple[Tokenizer, list[tuple[str, str]]]:
        if self.given is not None:
            return self.given.tokenizer, self.given.merges
        wanted = _vocab_size(self.settings)
        every = max(1, math.ceil(self.bytes["train"] / TOKENIZER_BYTES))
        task = progress.add_task(f"learning up to {wanted:,} tokens", total=None, figures="")
        stories = islice(self._clean_stories("train"), None, None, every)
        texts = (part for story in stories for part in bound_words(story))
        tokenizer, merges = train_tokenizer(texts, wanted)
        figures = f"from {'all stories' if every == 1 else f'one story in {every}'}"
        progress.update(task, total=1, completed=1, figures=figures)
        if tokenizer.vocab_size < wanted:
            print_notice(
                self.console,
                f"the text is short: its vocabulary has {tokenizer.vocab_size:,} tokens, not {wanted:,}, so the model "
                "gets smaller",
            )
        return tokenizer, merges

    def _shards(self, split: str, tokenizer: Tokenizer, progress: Progress) -> dict[str, Any]:
        task: TaskID = progress.add_task(f"encoding {split}", total=self.counts[split], figures="")
        writer = ShardWriter(self.folder, split)
        stories = self._clean_stories(split)
        while batch := list(islice(stories, BATCH_STORIES)):
            writer.add(encode_stories(batch, tokenizer))
            progress.update(task, advance=len(batch), figures=f"{writer.tokens:,} tokens")
        advice = "give more text"
        if split == "valid":
            advice = "give --valid more text" if self.settings.valid else "give more text, or some with --valid"
        check_context("the", split, writer.tokens, self.settings.context, advice)
        return writer.close()

    def _report(
        self, cleaning: dict[str, dict[str, int]], splits: dict[str, dict[str, Any]], sources: dict[str, list[Source]]
    ) -> None:
        for split, counts in cleaning.items():
            if counts["read"]:
                print_notice(self.console, cleaning_line(split, Cleaning(**counts), sources[split]))
        if dropped := truncated_line(Cleaning(**cleaning["train"])):
            print_notice(self.console, dropped)
        if splits["valid"]["stories"] < FEW_STORIES:
            few = f"{count_stories(splits['valid']['stories'])} for validation: too few for exact figures"
            print_notice(self.console, f"{few}; give more text, or some with --valid")
        for split, entry in splits.items():
            print_notice(
                self.console,
                f"{split}: {count_stories(entry['stories'])}, {entry['tokens']:,} tokens "
                f"of {entry['bytes_per_token']:.2f} bytes, in {counted(len(entry['shards']), 'shard')}",
            )
