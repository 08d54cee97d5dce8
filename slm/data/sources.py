"""Stories out of whatever people keep them in: text, tables, folders, Hugging Face data sets; always streaming."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from slm.errors import SlmxError
from slm.tokenizer import END_OF_TEXT

SEPARATORS = ("auto", "endoftext", "blank")
TABLES = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
TEXTS = (".txt", ".text", ".md")
COMPRESSED = (".gz", ".zst")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
CHUNK = 1 << 20


@dataclass(frozen=True)
class Source:
    """One place that stories come from: a text or table file, or a data set on the hub with its split."""

    name: str
    kind: str
    separator: str = ""

    @property
    def path(self) -> Path | None:
        """The file, unless it is a data set on the hub."""
        return None if self.kind == "hub" else Path(self.name)


def _suffix(path: Path) -> str:
    suffixes = [part.lower() for part in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def find_sources(given: Sequence[str | Path], separator: str = "auto") -> list[Source]:
    """The sources that names stand for: a folder is every text and table below it, sorted.

    Raises SlmxError for a name that is no file, no folder and no `owner/name` of a hub data set.
    """
    if separator not in SEPARATORS:
        raise SlmxError(f"--separator {separator}: choose one of {', '.join(SEPARATORS)}")
    found = []
    for name in given:
        path = Path(name)
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.is_file() and _suffix(p) in (*TABLES, *TEXTS))
            if not files:
                raise SlmxError(f"{path}: no corpus in this folder (looked for {', '.join((*TEXTS, *TABLES))})")
            found += [_file_source(file, separator) for file in files]
        elif path.exists() or not HUB_NAME.fullmatch(str(name)) or _suffix(path) in (*TABLES, *TEXTS):
            found.append(_file_source(path, separator))
        else:
            found.append(Source(str(name), "hub"))
    return found


def _file_source(path: Path, separator: str) -> Source:
    if _suffix(path) in TABLES:
        return Source(str(path), TABLES[_suffix(path)])
    if separator == "auto":
        separator = "endoftext" if _has_marker(path) else "blank"
    return Source(str(path), "text", separator)


def read_stories(sources: Sequence[str | Path | Source], field: str = "text", separator: str = "auto") -> Iterator[str]:
    """Stories of sources, stripped, none of them empty; a table's are in its column `field`.

    Raises SlmxError naming the file and the line or row that is missing, binary, not UTF-8 or no text.
    """
    for given in sources:
        for source in [given] if isinstance(given, Source) else find_sources([given], separator):
            count = 0
            for story in _read(source, field):
                stripped = story.strip()
                if stripped:
                    count += 1
                    yield stripped
            if not count:
                raise SlmxError(
                    f"{source.name}: holds no story; expected text with a {END_OF_TEXT} line between stories"
                )


def _read(source: Source, field: str) -> Iterator[str]:
    if source.kind == "text":
        return _read_text(Path(source.name), END_OF_TEXT if source.separator == "endoftext" else "")
    return _read_rows(source, field)


def _open(path: Path) -> BinaryIO:
    import fsspec

    try:
        opened: BinaryIO = fsspec.open(path.absolute().as_uri(), "rb", compression="infer").open()
    except ValueError as error:
        raise SlmxError(f'{path}: cannot unpack ({error}); pip install "slmx[train]"') from error
    return opened


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with _open(path) as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise SlmxError(f"{path}: cannot read the corpus ({error.strerror or error})") from error
    except Exception as error:  # zlib and zstandard have exceptions of their own for a damaged archive
        if isinstance(error, SlmxError):
            raise
        raise SlmxError(f"{path}: a damaged archive ({error})") from error


def _has_marker(path: Path) -> bool:
    tail = b""
    for chunk in _chunks(path):
        seen = tail + chunk
        if END_OF_TEXT.encode() in seen:
            return True
        tail = seen[-len(END_OF_TEXT) :]
    return False


def _lines(path: Path) -> Iterator[str]:
    number, rest = 0, b""
    for chunk in _chunks(path):
        if not number and not rest and chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise SlmxError(f"{path}: UTF-16 text; convert it, for example with iconv -f UTF-16 -t UTF-8")
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            number += 1
            yield _decode(line, path, number) + "\n"
    if rest:
        yield _decode(rest, path, number + 1)


def _decode(line: bytes, path: Path, number: int) -> str:
    if b"\0" in line:
        raise SlmxError(f"{path}:{number}: a binary file, expected UTF-8 text, .jsonl, .csv or .parquet")
    try:
        return line.removesuffix(b"\r").decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        raise SlmxError(f"{path}:{number}: not UTF-8; convert it, for example with iconv -t UTF-8") from None


def _read_text(path: Path, marker: str) -> Iterator[str]:
    story: list[str] = []
    for line in _lines(path):
        if marker and marker in line:
            before, *between, after = line.split(marker)
            yield "".join([*story, before])
            yield from between
            story = [after]
        elif not marker and not line.strip():
            yield "".join(story)
            story = []
        else:
            story.append(line)
    yield "".join(story)


def load_rows(kind: str, name: str) -> Any:  # noqa: ANN401 (an IterableDataset, which has no types)
    """Stream the rows of a table file, or of a data set `owner/name:split`, with Hugging Face `datasets`."""
    import datasets

    if kind != "hub":
        return datasets.load_dataset(kind, data_files=[name], split="train", streaming=True)
    repository, _, split = name.partition(":")
    return datasets.load_dataset(repository, split=split or "train", streaming=True)


def hub_version(name: str) -> str:
    """What `datasets` knows a hub data set's version by; SlmxError when the hub cannot be reached."""
    import datasets

    try:
        return str(datasets.load_dataset_builder(name.partition(":")[0]).hash)
    except Exception as error:  # datasets passes on what huggingface_hub and httpx raise
        raise _unreadable(Source(name, "hub"), error) from error


def _unreadable(source: Source, error: Exception) -> SlmxError:
    cause = error.__cause__ or error
    reason = getattr(cause, "strerror", None) or next(iter(str(cause).strip().splitlines()), type(cause).__name__)
    advice = "; check the name and the connection, or give a file" if source.kind == "hub" else ""
    return SlmxError(f"{source.name}: cannot read the corpus ({reason[:200]}){advice}")


def _read_rows(source: Source, field: str) -> Iterator[str]:
    where = source.name
    try:
        if source.path is not None:
            source.path.open("rb").close()
        for number, row in enumerate(load_rows(source.kind, where), start=1):
            if field not in row:
                names = ", ".join(sorted(row))
                raise SlmxError(f"{where}: no column {field!r}; it has {names}: choose one with --field")
            if not isinstance(row[field], str):
                raise SlmxError(f"{where}: row {number}: expected text in {field!r}, not {row[field]!r:.40}")
            yield row[field]
    except ModuleNotFoundError as error:
        raise SlmxError(f'{where}: reading it needs {error.name}: pip install "slmx[train]"') from error
    except SlmxError:
        raise
    except Exception as error:  # datasets passes on what pyarrow, pandas, fsspec and httpx raise
        raise _unreadable(source, error) from error
