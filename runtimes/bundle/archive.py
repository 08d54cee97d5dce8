"""The zip archive of a bundle. It is read without unpacking it, and `slmx pack` writes it.

An archive holds the files one after the other, then the directory of zip, and nothing else. Zip allows more, and
programs disagree on what it means: bytes that no entry names, two names of one file, a second directory, links, lengths
that follow the data. All of that is refused when the archive is opened, before a file of it is read. So every program
finds the same files in it. PKWARE's APPNOTE.TXT describes zip.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from runtimes.bundle.manifest import MAX_PATH, is_plain_path
from slm.console.errors import SlmxError
from slm.folder_kind import MODEL_SUFFIXES, Kind, find_kind, wrong_kind
from slm.storage.read_errors import unreadable

STORED, DEFLATED = 0, 8
UTF8_NAME, DEFLATE_LEVELS, ENCRYPTED = 0x800, 0x6, 0x2041  # bits in the flags of an entry
# The DOS attributes read-only, hidden, system, archive and normal. Others are a folder, a volume, a device, a link.
DOS_FILE, DOS_FOLDER = 0xA7, 0x10
MAX_ENTRIES = 1000
MAX_BYTES = 2**32 - 2  # with more, zip needs an extension
MAX_RATIO = 100  # of the size of all files to that of the archive; model files are hardly packed, JSON up to 20 times
CHUNK = 2**18
STRAY = "there are other bytes before, after or between its files"

# Both headers of an entry share these fields: version, flags, method, time, date, CRC-32, bytes in the archive, own
# bytes, length of the name, length of extra fields.
_SHARED = struct.Struct("<5H3L2H")
# Length of a comment, number of the disk, text or not, attributes, place of the other header.
_REST = struct.Struct("<3H2L")
_END = struct.Struct("<4s4H2LH")
_LOCAL_MARK, _CENTRAL_MARK, _END_MARK = b"PK\3\4", b"PK\1\2", b"PK\5\6"
_LOCAL_BYTES = 4 + _SHARED.size
_CENTRAL_BYTES = 6 + _SHARED.size + _REST.size
_MADE_BY = struct.pack("<H", 3 << 8 | 10)  # Unix, version 1.0 of zip
_VERSION, _TIME, _DATE = 10, 0, 1 << 5 | 1  # version 1.0; midnight of 1980-01-01
_ATTRIBUTES = (stat.S_IFREG | 0o644) << 16


@dataclass(frozen=True)
class _Entry:
    """An entry of an archive.

    Attributes:
        name: Its name as stored; that of a folder ends with "/".
        method: How its data is packed.
        crc: CRC-32 of its content.
        packed: Bytes of its data in the archive.
        size: Bytes of its content.
        start: Where its data begins, in bytes.
    """

    name: str
    method: int
    crc: int
    packed: int
    size: int
    start: int


def write_archive(file: IO[bytes], files: Iterable[tuple[str, bytes]]) -> None:
    """Writes an archive. The same files give the same bytes, on every machine and with every version of Python.

    Files are stored, not deflated, because each version of zlib may deflate to other bytes.

    Args:
        file: An empty file.
        files: The name and the content of each file, in order. All together must be at most `MAX_BYTES`.
    """
    directory, place, count = io.BytesIO(), 0, 0
    for name, content in files:
        size, raw = len(content), name.encode("ascii")
        shared = _SHARED.pack(_VERSION, 0, STORED, _TIME, _DATE, zlib.crc32(content), size, size, len(raw), 0)
        file.write(_LOCAL_MARK + shared + raw)
        file.write(content)
        directory.write(_CENTRAL_MARK + _MADE_BY + shared + _REST.pack(0, 0, 0, _ATTRIBUTES, place) + raw)
        place += _LOCAL_BYTES + len(raw) + size
        count += 1
    file.write(directory.getvalue())
    file.write(_END.pack(_END_MARK, 0, 0, count, count, directory.tell(), place, 0))


class ZipStore:
    """The files of a zip archive, with the same names as in the folder of a bundle.

    A file is inflated only if its stated size is at most the size that the manifest lists, and never beyond that size.
    """

    remedy = "copy the archive again, or pack the bundle again"

    def __init__(self, archive: Path) -> None:
        if archive.suffix.lower() in MODEL_SUFFIXES and find_kind(archive) is not Kind.PACKED:
            raise wrong_kind(archive, Kind.BUNDLE)
        self._archive = archive
        try:
            with self._opened() as file:
                self._entries = _read_directory(file)
        except ValueError as error:
            raise SlmxError(f"{archive}: {error}; copy it again, or make one with slmx pack") from None

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        try:
            with self._archive.open("rb") as file:
                yield file
        except OSError as error:
            raise unreadable(self._archive, error, advice="copy it again") from None

    def location(self, name: str) -> str:
        """Returns where a file is, for messages."""
        return f"{self._archive}:{name}"

    def read(self, name: str, most: int) -> bytes:
        """Returns the bytes of a file, as in `runtimes.bundle.store.Store`."""
        entry = self._entries.get(name)
        if entry is None:
            raise SlmxError(f"{self.location(name)}: missing from the archive; {self.remedy}")
        if entry.size > most:
            raise SlmxError(f"{self.location(name)}: {entry.size:,} bytes, {most:,} at most; {self.remedy}")
        with self._opened() as file:
            file.seek(entry.start)
            content = file.read(entry.size) if entry.method == STORED else _inflate(file, entry)
        if content is None or len(content) != entry.size or zlib.crc32(content) != entry.crc:
            raise SlmxError(f"{self.location(name)}: damaged; {self.remedy}")
        return content

    def names(self) -> list[str]:
        """Returns the names of all files in the archive, sorted."""
        return sorted(self._entries)


def _inflate(file: IO[bytes], entry: _Entry) -> bytes | None:
    """Returns the inflated data of an entry; None if it is damaged. It stops one byte after the stated size."""
    unpacker, content, left = zlib.decompressobj(-zlib.MAX_WBITS), io.BytesIO(), entry.packed
    while content.tell() <= entry.size and not unpacker.eof:
        chunk = unpacker.unconsumed_tail
        if not chunk:
            chunk = file.read(min(left, CHUNK))
            left -= len(chunk)
        try:
            piece = unpacker.decompress(chunk, min(CHUNK, entry.size + 1 - content.tell()))
        except zlib.error:
            return None
        if not chunk and not piece:
            return None
        content.write(piece)
    return content.getvalue() if unpacker.eof and not left and not unpacker.unused_data else None


def _read_directory(file: IO[bytes]) -> dict[str, _Entry]:
    """Returns the files of an archive by name, after a check of every header in it.

    Raises:
        ValueError: The file is no zip archive, or programs may read it in different ways.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END.size))
    end = file.read(_END.size)
    if len(end) < _END.size or not end.startswith(_END_MARK):
        raise ValueError("neither the folder of a bundle nor a whole zip archive of one (it does not end as one)")
    _, disk, first_disk, here, count, length, start, comment = _END.unpack(end)
    if (disk, first_disk, here, comment) != (0, 0, count, 0) or start + length + _END.size != size:
        raise ValueError(STRAY)
    if count > MAX_ENTRIES or length > MAX_ENTRIES * (_CENTRAL_BYTES + MAX_PATH):
        raise ValueError(f"{count:,} entries, and a bundle has {MAX_ENTRIES:,} at most")
    file.seek(start)
    directory = file.read(length)
    found: dict[str, _Entry] = {}
    place, position = 0, 0
    for _ in range(count):
        header = directory[position : position + _CENTRAL_BYTES + MAX_PATH + 1]
        entry, local = _read_header(header, place)
        name = entry.name.removesuffix("/").casefold()
        if name in found:
            raise ValueError(f"{entry.name!a} is in it twice")
        file.seek(place)
        if file.read(len(local)) != local:
            raise ValueError(f"{entry.name!a} is described in two ways, or there are other bytes before it")
        found[name] = entry
        place = entry.start + entry.packed
        position += _CENTRAL_BYTES + len(entry.name)
    if place != start or position != length:
        raise ValueError(STRAY)
    files = {entry.name: entry for entry in found.values() if not entry.name.endswith("/")}
    total = sum(entry.size for entry in files.values())
    if total > min(MAX_BYTES, MAX_RATIO * size):
        raise ValueError(f"{total:,} bytes of files in an archive of {size:,}, more than a bundle has")
    return files


def _read_header(header: bytes, place: int) -> tuple[_Entry, bytes]:
    """Reads an entry in the directory of an archive.

    Args:
        header: The bytes of the directory from this entry on.
        place: Where the entry must be in the archive.

    Returns:
        The entry, and the bytes that must stand at `place`, before its data.

    Raises:
        ValueError: The header is damaged, or programs may read it in different ways.
    """
    if len(header) < _CENTRAL_BYTES or not header.startswith(_CENTRAL_MARK):
        raise ValueError("its directory is damaged")
    shared = header[6 : 6 + _SHARED.size]
    _, flags, method, _, _, crc, packed, size, name_length, extra = _SHARED.unpack(shared)
    comment, disk, _, attributes, offset = _REST.unpack(header[6 + _SHARED.size : _CENTRAL_BYTES])
    raw = header[_CENTRAL_BYTES : _CENTRAL_BYTES + name_length]
    name, is_folder = raw.decode("latin-1"), raw.endswith(b"/")
    if len(raw) < name_length or not is_plain_path(name.removesuffix("/")):
        raise ValueError(f"the name {name[:80]!a} in it is not a plain path below the bundle")
    if flags & ENCRYPTED:
        raise ValueError(f"{name} is encrypted")
    if flags & ~(UTF8_NAME | DEFLATE_LEVELS) or method not in (STORED, DEFLATED):
        raise ValueError(f"{name} is packed in a way that slmx does not read")
    if extra or comment or disk:
        raise ValueError(f"{name} has extra fields or a comment, which another zip program wrote, not slmx pack")
    mode, dos = stat.S_IFMT(attributes >> 16), attributes & 0xFFFF
    if mode not in (0, stat.S_IFDIR if is_folder else stat.S_IFREG) or dos & ~(DOS_FILE | DOS_FOLDER * is_folder):
        raise ValueError(f"{name} is a link or another thing that is no file")
    if (method == STORED and packed != size) or (is_folder and (packed or size)):
        raise ValueError(f"{name} has two sizes")
    if offset != place:
        raise ValueError(STRAY)
    local = _LOCAL_MARK + shared + raw
    return _Entry(name, method, crc, packed, size, place + len(local)), local
