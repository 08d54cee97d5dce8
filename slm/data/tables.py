"""Reads one column of a table: JSON, CSV, Parquet, or a data set on the Hugging Face hub."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from slm.console.counted import counted
from slm.console.errors import SlmxError, needs
from slm.console.plain_text import as_plain_text
from slm.data.files import CHUNK, compression_of, join_lines, read_text
from slm.storage.read_errors import unreadable

ROWS_AT_ONCE = 1024
LONGEST_CELL = 2**31 - 1


def read_column(kind: str, name: str, path: Path | None, field: str) -> Iterator[str]:
    """Yields the texts in the column `field`, one for each row; "" for a row whose cell is empty, null or missing.

    Args:
        kind: `json` (an array, or one object per line), `csv`, `tsv`, `parquet` or `hub`.
        name: The name in error messages; for `hub` the data set, as `owner/name` or `owner/name:split`.
        path: The file, unless the table is on the hub.
        field: The column. Other columns are ignored.

    Raises:
        SlmxError: The table cannot be read, has no such column, or a cell holds something other than text.
    """
    cells = _hub_cells(name, field) if path is None else _file_cells(kind, name, path, field)
    for number, cell in enumerate(cells, start=1):
        if cell is not None and not isinstance(cell, str):
            raise SlmxError(f"{name}: row {number}: expected text in {field!r}, not {cell!r:.40}")
        yield cell or ""


def _file_cells(kind: str, name: str, path: Path, field: str) -> Iterator[Any]:
    if kind == "parquet":
        return _parquet_cells(name, path, field)
    lines = join_lines(read_text(path, name))
    return _json_cells(name, lines, field) if kind == "json" else _csv_cells(name, lines, field, kind)


def _no_column(name: str, field: str, columns: Iterable[str], more: str = "") -> SlmxError:
    found = as_plain_text(", ".join(map(str, columns)))[:200]
    return SlmxError(
        f"{name}: no column {field!r}; it has {found}: choose one with slmx prepare --field, or rename it to {field!r}"
        f"{more}"
    )


def _json_cells(name: str, lines: Iterable[str], field: str) -> Iterator[Any]:
    for number, row in enumerate(_json_rows(name, lines), start=1):
        if not isinstance(row, dict):
            raise SlmxError(f"{name}: row {number}: expected an object with {field!r}, not {row!r:.40}")
        if number == 1 and field not in row:
            raise _no_column(name, field, row)
        yield row.get(field)


def _json_rows(name: str, lines: Iterable[str]) -> Iterator[Any]:
    numbered = enumerate(lines, start=1)
    first, line = next(((number, line) for number, line in numbered if not line.isspace()), (1, ""))
    if line.lstrip().startswith("["):
        yield from _parse(name, first, "".join([line, *(other for _, other in numbered)]))
        return
    for number, text in chain([(first, line)], numbered):
        if text.strip():
            yield _parse(name, number, text.strip())


def _parse(name: str, line: int, text: str) -> Any:  # noqa: ANN401 (any JSON value)
    try:
        return json.loads(text)
    except RecursionError:
        raise SlmxError(f"{name}:{line}: JSON nested too deep; write one flat object a line") from None
    except json.JSONDecodeError as error:
        where = f"{name}:{line + error.lineno - 1}"
        raise SlmxError(
            f"{where}: not JSON ({error.msg}, column {error.colno}); expected one object per line, or an array of them"
        ) from None
    except ValueError:  # Python reads no whole number of more than 4,300 digits
        raise SlmxError(f"{name}:{line}: a number of too many digits; shorten it") from None


def _csv_cells(name: str, lines: Iterable[str], field: str, kind: str) -> Iterator[str]:
    csv.field_size_limit(LONGEST_CELL)
    lines = iter(lines)
    first = next(lines, "")
    delimiter = "\t" if kind == "tsv" else ";" if ";" in first and "," not in first else ","
    rows = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
    try:
        header = next(rows, [])
        if header and field not in header:
            both = delimiter == "," and ";" in first
            more = "; the first line has , and ; and was divided at , (a file with ; needs a first line without ,)"
            raise _no_column(name, field, header, more if both else "")
        for row in rows:
            if row and len(row) != len(header):
                raise SlmxError(
                    f"{name}:{rows.line_num}: {counted(len(row), 'cell')}, but {counted(len(header), 'column')}; "
                    "quote a text that holds the separator"
                )
            if row:
                yield row[header.index(field)]
    except csv.Error as error:
        raise SlmxError(f"{name}:{rows.line_num}: not {kind.upper()} ({error}); check its quotes") from None


def _parquet_cells(name: str, path: Path, field: str) -> Iterator[Any]:
    with needs("train"):
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

    try:
        if packed := compression_of(path):
            raise SlmxError(f"{name}: Parquet inside {packed}; unpack it first (Parquet is compressed by itself)")
        with path.open("rb") as file:
            table = ParquetFile(file, buffer_size=CHUNK)
            if field not in table.schema_arrow.names:
                raise _no_column(name, field, table.schema_arrow.names)
            for batch in table.iter_batches(ROWS_AT_ONCE, columns=[field]):
                yield from batch.column(field).to_pylist()
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise unreadable(name, error.__cause__ or error, "the text") from error


def _import_datasets() -> Any:  # noqa: ANN401 (a module without types)
    """Imports `datasets`, and hides the warnings about each try to reach the hub: the last failure becomes an error."""
    with needs("train"):
        import datasets
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    return datasets


def hub_rows(name: str) -> Any:  # noqa: ANN401 (an IterableDataset, which has no types)
    """Streams the rows of a data set on the hub as dictionaries. `name` is `owner/name` or `owner/name:split`."""
    datasets = _import_datasets()
    repository, _, split = name.partition(":")
    return datasets.load_dataset(repository, split=split or "train", streaming=True)


def hub_version(name: str) -> str:
    """Returns the version of a data set on the hub, as `datasets` names it.

    Raises:
        SlmxError: The hub cannot be reached.
    """
    datasets = _import_datasets()
    try:
        return str(datasets.load_dataset_builder(name.partition(":")[0]).hash)
    except Exception as error:  # datasets passes on the errors of huggingface_hub and httpx
        raise unreadable(name, error.__cause__ or error, "the text", _CHECK_HUB) from error


_CHECK_HUB = "check the name and the connection, or give a file"


def _hub_cells(name: str, field: str) -> Iterator[Any]:
    try:
        for number, row in enumerate(hub_rows(name), start=1):
            if number == 1 and field not in row:
                raise _no_column(name, field, row)
            yield row.get(field)
    except SlmxError:
        raise
    except Exception as error:  # datasets passes on the errors of pyarrow, pandas, fsspec and httpx
        raise unreadable(name, error.__cause__ or error, "the text", _CHECK_HUB) from error
