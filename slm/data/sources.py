"""Finds the sources of a corpus (texts, tables, folders, pipes, data sets on the hub) and reads their stories."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from slm.console.errors import SlmxError, UsageError, unknown
from slm.console.notice import Log
from slm.data.cleaning import Cleaning
from slm.data.files import COMPRESSIONS, copy_stream, read_bytes, read_head, read_text
from slm.data.stories import BLANK_LINE, MARKER, SEPARATORS, normalise, split_stories
from slm.data.tables import read_column
from slm.folder_kind import Kind, find_kind, like_a_path, wrong_kind
from slm.hub.name import HUB
from slm.tokenizers.settings import END_OF_TEXT

TABLES = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
TEXTS = (".txt", ".text", ".md")
STREAMS = ("-", "/dev/stdin")
HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*(:[\w.-]+)?")
# A file with any name holds JSON if it begins with the first key of an object, alone or in an array.
JSON_START = re.compile(rb'\s*(\[\s*)?\{\s*"([^"\\]|\\.)*"\s*:')
PARQUET_START = b"PAR1"

# Names of files in a folder that describe a corpus.
ABOUT = re.compile(
    r"(readme|licen[cs]e|copying|notice|changelog|citation|contributing|code_of_conduct|requirements)([._-].*)?"
    r"|dataset_infos?\.json|dataset_dict\.json|state\.json",
    re.IGNORECASE,
)
# Names of files in a folder that belong to one split of a corpus. `datasets` knows the same names.
SPLIT_NAMES = {
    "train": re.compile(r"(^|[/._-])train(ing)?([/._\d-]|$)", re.IGNORECASE),
    "valid": re.compile(r"(^|[/._-])(valid|validation|val|dev|eval|tests?)([/._\d-]|$)", re.IGNORECASE),
}
OTHER_SPLIT = {"train": "valid", "valid": "train"}
NAMES_SHOWN = 5


@dataclass(frozen=True)
class Source:
    """One place that stories come from.

    Attributes:
        name: The name that the user gave; for a data set on the hub `owner/name` or `owner/name:split`.
        kind: `text`, `json`, `csv`, `tsv`, `parquet` or `hub`.
        path: The file to read; None for a data set on the hub.
        separator: What separates the stories of a text: `endoftext` or `blank`; "" for a table.
        copy: The temporary file that holds the content of a pipe. It exists as long as the source.
    """

    name: str
    kind: str
    path: Path | None = None
    separator: str = ""
    copy: object = field(default=None, repr=False, compare=False)


def find_sources(
    given: Sequence[str | Path],
    separator: str = "auto",
    split: str | None = None,
    log: Log | None = None,
) -> list[Source]:
    """Finds the sources that names stand for.

    A folder stands for every text and table below it, sorted by path. Hidden files and files that describe the corpus
    are left out. `-` is standard input. Pipes are copied into temporary files. `owner/name` is a data set on the hub
    unless a folder here is like it; `hub:owner/name` always is.

    Args:
        given: Files, folders, `-`, pipes, and data sets on the hub.
        separator: What separates the stories of a text. `auto` is `endoftext` if the text contains it, or else `blank`.
        split: `train` leaves out files of a folder that are named as held-out data, `valid` those that are named as
            training data. None leaves out neither.
        log: Called with a line for each folder of which files are left out.

    Returns:
        The sources, in the order of `given`.

    Raises:
        SlmxError: A name is not a file, a folder or `owner/name`, or a file cannot be read or is not a corpus.
    """
    if separator not in SEPARATORS:
        raise UsageError(unknown("separator", separator, SEPARATORS))
    found = []
    for name in map(str, given):
        if not name:
            raise UsageError("the name of a text is empty; give a file or a folder (. is the current folder)")
        path = Path(name)
        if name in STREAMS or path.is_fifo():
            copy = copy_stream(name)
            found.append(_file_source(Path(copy.name), separator, name, copy))
        elif path.is_dir():
            found += [_file_source(file, separator) for file in _files_below(path, split, log)]
        elif path.exists() and not path.is_file():
            raise SlmxError(f"{name}: neither a file, a folder nor a pipe; check the path")
        elif path.exists() or not HUB_NAME.fullmatch(name.removeprefix(HUB)) or _suffix(name) in (*TABLES, *TEXTS):
            found.append(_file_source(path, separator))
        elif not name.startswith(HUB) and (near := like_a_path(path)):
            raise SlmxError(f"{name}: no such file or folder{near}")
        else:
            found.append(Source(name.removeprefix(HUB), "hub"))
    return found


def _suffix(name: str) -> str:
    """Returns the last suffix in lower case, ignoring the suffix of a compression."""
    path = Path(name)
    return Path(path.stem if path.suffix.lower() in COMPRESSIONS else path.name).suffix.lower()


def _files_below(folder: Path, split: str | None, log: Log | None) -> list[Path]:
    if find_kind(folder) not in (Kind.FOLDER, Kind.EMPTY):
        raise wrong_kind(folder, Kind.TEXT)
    taken, other_kind, other_split = [], [], []
    checked = {folder}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if any(part.startswith(".") for part in Path(name).parts) or not file.is_file():
            continue
        if file.parent not in checked and find_kind(file.parent) is not Kind.FOLDER:
            raise wrong_kind(file.parent, Kind.TEXT)
        checked.add(file.parent)
        if _suffix(name) not in (*TABLES, *TEXTS) or ABOUT.fullmatch(file.name):
            other_kind.append(name)
        elif split is not None and SPLIT_NAMES[OTHER_SPLIT[split]].search(str(Path(name).with_suffix(""))):
            other_split.append(name)
        else:
            taken.append(file)
    notes = []
    if other_kind:
        notes.append(f"{_some(other_kind)} (no stories by name)")
    if other_split:
        use = "give it with --valid to use it" if split == "train" else "name it itself to use it"
        notes.append(f"{_some(other_split)} ({OTHER_SPLIT[split or 'train']} data by name; {use})")
    left_out = f"left out {' and '.join(notes)}" if notes else ""
    if not taken:
        looked_for = ", ".join((*TEXTS, *TABLES))
        raise SlmxError(
            f"{folder}: no corpus in this folder (looked for {looked_for}){'; ' if notes else ''}{left_out}"
        )
    if log is not None and notes:
        log(f"{folder}: {left_out}")
    return taken


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _file_source(path: Path, separator: str, name: str | None = None, copy: object = None) -> Source:
    name = name or str(path)
    head = read_head(path, name)
    kind = TABLES.get(_suffix(name)) or _kind_of(head)
    if kind != "text":
        return Source(name, kind, path, copy=copy)
    if separator == "auto":
        separator = "endoftext" if _has_marker(path, name) else "blank"
    return Source(name, kind, path, separator, copy)


def _kind_of(head: bytes) -> str:
    """Returns the kind of a file by its first bytes, for names that do not show it."""
    if head.startswith(PARQUET_START):
        return "parquet"
    return "json" if JSON_START.match(head) else "text"


def _has_marker(path: Path, name: str) -> bool:
    marker = END_OF_TEXT.encode()
    tail = b""
    for block in read_bytes(path, name):
        if marker in tail + block:
            return True
        tail = (tail + block)[-len(marker) :]
    return False


def read_stories(
    sources: Sequence[str | Path | Source], field: str = "text", counts: Cleaning | None = None
) -> Iterator[str]:
    """Yields the stories of sources in order. They are stripped, and none is empty.

    Memory is bounded, except for a file that is one JSON array, which is read whole.

    Args:
        sources: What `find_sources` takes or returns.
        field: The column of a table that holds the stories. `<|endoftext|>` separates several stories in a row.
        counts: Empty rows and cuts of long stories are added to its `read`, `empty` and `cut`.

    Raises:
        SlmxError: A source cannot be read or holds no story. The message names the file and the line or row.
    """
    counts = Cleaning() if counts is None else counts
    for given in sources:
        for source in [given] if isinstance(given, Source) else find_sources([given]):
            found = False
            for story in _read(source, field, counts):
                if stripped := story.strip():
                    found = True
                    yield stripped
            if not found:
                if source.kind != "text":
                    raise SlmxError(f"{source.name}: holds no story; expected text in {field!r}")
                raise SlmxError(
                    f"{source.name}: holds no story, only white space or nothing; give a text of stories, with a blank "
                    f"line or a line {END_OF_TEXT} between two"
                )


def _read(source: Source, field: str, counts: Cleaning) -> Iterator[str]:
    if source.kind == "text" and source.path is not None:
        separator = MARKER if source.separator == "endoftext" else BLANK_LINE
        yield from split_stories(read_text(source.path, source.name), separator, counts)
        return
    for text in read_column(source.kind, source.name, source.path, field):
        if text.strip():
            yield from split_stories([normalise(text)], MARKER, counts)
        else:
            counts.read += 1
            counts.empty += 1
