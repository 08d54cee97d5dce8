"""Reads the bytes and the text of one corpus file, compressed or not."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, BinaryIO

from slm.console.errors import SlmxError, needs
from slm.storage.read_errors import unreadable
from slm.storage.wide_text import wide_text

CHUNK = 1 << 20
ZSTD_CHUNK = 1 << 14  # a chunk of text grows at most a few hundred times when it is unpacked

# Files that hold no plain text: their first bytes, the name of the format, and what the user can do.
_UNPACK = "unpack it and give the file or the folder inside"
_SAVE = "save its text as UTF-8 and give that"
FOREIGN = (
    (b"PK\x03\x04", "a zip archive, as .docx, .xlsx and .epub are too", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"%PDF", "a PDF", _SAVE),
    (b"{\\rtf", "an RTF document", _SAVE),
    (b"<!doctype", "an HTML page", _SAVE),
    (b"<html", "an HTML page", _SAVE),
    (b"<?xml", "an XML document", _SAVE),
    (b"version https://git-lfs", "a Git LFS pointer to the file, not the file", "fetch the file with git lfs pull"),
)
BINARY = "a binary file, not text; give UTF-8 text, .jsonl, .csv or .parquet"
TAR_MAGIC, TAR_OFFSET = b"ustar", 257


def _blocks(file: BinaryIO | io.BufferedIOBase) -> Iterator[bytes]:
    while block := file.read(CHUNK):
        yield block


def _open_gzip(file: BinaryIO) -> gzip.GzipFile:
    return gzip.GzipFile(fileobj=file)


def _unpack(opener: Callable[[BinaryIO], io.BufferedIOBase], file: BinaryIO) -> Iterator[bytes]:
    with opener(file) as unpacked:
        yield from _blocks(unpacked)


def _unpack_zstd(file: BinaryIO) -> Iterator[bytes]:
    with needs("train"):
        import zstandard

    frame = zstandard.ZstdDecompressor().decompressobj()
    while packed := file.read(ZSTD_CHUNK):
        while packed:
            if frame.eof:
                frame = zstandard.ZstdDecompressor().decompressobj()
            try:
                yield frame.decompress(packed)
            except zstandard.ZstdError as error:
                raise zlib.error(str(error)) from error
            packed = frame.unused_data
    if not frame.eof:
        raise EOFError("the file ends before its last frame does")


# Suffix of each compression: the first bytes of such a file, and the function that unpacks it.
COMPRESSIONS: dict[str, tuple[bytes, Callable[[BinaryIO], Iterator[bytes]]]] = {
    ".gz": (b"\x1f\x8b", partial(_unpack, _open_gzip)),
    ".bz2": (b"BZh", partial(_unpack, bz2.BZ2File)),
    ".xz": (b"\xfd7zXZ\x00", partial(_unpack, lzma.LZMAFile)),
    ".zst": (b"\x28\xb5\x2f\xfd", _unpack_zstd),
}


def compression_of(path: Path) -> str | None:
    """Returns the suffix of the compression that a file's name or its first bytes show, or None for a plain file.

    Raises:
        OSError: The file cannot be read.
    """
    if path.suffix.lower() in COMPRESSIONS:
        return path.suffix.lower()
    with path.open("rb") as file:
        start = file.read(8)
    return next((suffix for suffix, (magic, _) in COMPRESSIONS.items() if start.startswith(magic)), None)


def read_bytes(path: Path, name: str) -> Iterator[bytes]:
    """Yields the unpacked content in blocks of about `CHUNK` bytes.

    Args:
        path: The file to open.
        name: The name of the file in error messages.

    Raises:
        SlmxError: The file cannot be read, or its archive is damaged or ends too early.
    """
    try:
        compression = compression_of(path)
        unpack = _blocks if compression is None else COMPRESSIONS[compression][1]
        with path.open("rb") as file:
            yield from unpack(file)
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise SlmxError(f"{name}: a damaged archive ({error}); copy it again") from error
    except OSError as error:
        raise unreadable(name, error, "the text") from error


def read_head(path: Path, name: str) -> bytes:
    """Returns the first block of the unpacked content, without the byte order mark of UTF-8.

    Args:
        path: The file to open.
        name: The name of the file in error messages.

    Raises:
        SlmxError: The file cannot be read, or its first bytes show that it is neither UTF-8 text nor a table.
    """
    head = next(read_bytes(path, name), b"")
    if (wide := wide_text(head)) is not None:
        raise SlmxError(f"{name}: {wide}")
    head = head.removeprefix(codecs.BOM_UTF8)
    start = head[:64].lstrip().lower()
    for magic, kind, advice in FOREIGN:
        if start.startswith(magic.lower()):
            raise SlmxError(f"{name}: {kind}; {advice}")
    if head[TAR_OFFSET:].startswith(TAR_MAGIC):
        raise SlmxError(f"{name}: a tar archive; {_UNPACK}")
    return head


def read_text(path: Path, name: str) -> Iterator[str]:
    r"""Yields the decoded content in pieces of any length, with every line end as `\n`, without a byte order mark.

    Args:
        path: The file to open.
        name: The name of the file in error messages.

    Raises:
        SlmxError: The file cannot be read, or a line of it is binary or not UTF-8.
    """
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")(), translate=True)
    line = 1
    for block in chain(read_bytes(path, name), [b""]):
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            line += error.object.count(b"\n", 0, error.start)
            if b"\0" in error.object:
                raise SlmxError(f"{name}:{line}: {BINARY}") from None
            raise SlmxError(
                f"{name}:{line}: not UTF-8; convert it, for example with iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW"
            ) from None
        if "\0" in text:
            line += text.count("\n", 0, text.index("\0"))
            raise SlmxError(f"{name}:{line}: {BINARY}")
        line += text.count("\n")
        yield text


def join_lines(pieces: Iterable[str]) -> Iterator[str]:
    r"""Yields the lines of a text that comes in pieces, each with its `\n`. Only `\n` ends a line."""
    parts: list[str] = []
    for piece in pieces:
        for part in io.StringIO(piece):
            parts.append(part)
            if part.endswith("\n"):
                yield "".join(parts)
                parts.clear()
    if parts:
        yield "".join(parts)


def copy_stream(name: str) -> IO[bytes]:
    """Copies standard input (`-`) or a named pipe into a temporary file, because a corpus is read more than once.

    Returns:
        The open temporary file; it is deleted when the object is closed or no longer referenced.

    Raises:
        SlmxError: The stream cannot be read, or the temporary file cannot be written.
    """
    try:
        copy = tempfile.NamedTemporaryFile(prefix="slmx-")  # noqa: SIM115 (the caller closes it)
        with open(0 if name == "-" else name, "rb", closefd=name != "-") as stream:
            shutil.copyfileobj(stream, copy, CHUNK)
        copy.flush()
    except OSError as error:
        why = f"cannot copy the stream to a temporary file ({error.strerror})"
        raise SlmxError(f"{name}: {why}; check the path, or make room in {tempfile.gettempdir()}") from error
    return copy
