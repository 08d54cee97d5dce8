"""Zip archives byte by byte, so that a test can make every wrong one. The fields are those of PKWARE's APPNOTE.TXT."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtimes.bundle.store import Bundle
from slm.storage.file_names import MANIFEST_FILE

REGULAR = 0o100644 << 16


@dataclass(frozen=True)
class Entry:
    """An entry. The fields that are None follow from the others.

    `local` replaces fields in the header before the data, so that both headers differ. `before` are bytes before it.
    """

    name: bytes
    content: bytes = b""
    deflated: bool = False
    version: int = 10
    flags: int = 0
    method: int | None = None
    date: int = 33
    crc: int | None = None
    data: bytes | None = None
    packed: int | None = None
    size: int | None = None
    extra: bytes = b""
    comment: bytes = b""
    disk: int = 0
    attributes: int = REGULAR
    offset: int | None = None
    before: bytes = b""
    local: dict[str, Any] = field(default_factory=dict)

    @property
    def stored(self) -> bytes:
        """The data in the archive."""
        if self.data is not None:
            return self.data
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        return packer.compress(self.content) + packer.flush() if self.deflated else self.content

    def shared(self, **changes: Any) -> bytes:  # noqa: ANN401
        """The fields of both headers, and the name."""
        method = (8 if self.deflated else 0) if self.method is None else self.method
        values: dict[str, Any] = {
            "version": self.version,
            "flags": self.flags,
            "method": method,
            "time": 0,
            "date": self.date,
            "crc": zlib.crc32(self.content) if self.crc is None else self.crc,
            "packed": len(self.stored) if self.packed is None else self.packed,
            "size": len(self.content) if self.size is None else self.size,
            "name": self.name,
            "extra": self.extra,
        } | changes
        name: bytes = values.pop("name")
        extra: bytes = values.pop("extra")
        return struct.pack("<5H3L2H", *values.values(), len(name), len(extra)) + name + extra


def zip_of(entries: Sequence[Entry], *, before: bytes = b"", gap: bytes = b"", after: bytes = b"", **end: Any) -> bytes:  # noqa: ANN401
    """An archive. `before`, `gap` and `after` are bytes before it, before its directory and behind it.

    `end` replaces fields of its last record: count, here, length, start, disk, comment.
    """
    written, directory = bytearray(before), bytearray()
    for entry in entries:
        written += entry.before
        offset = len(written) if entry.offset is None else entry.offset
        written += b"PK\3\4" + entry.shared(**entry.local) + entry.stored
        rest = struct.pack("<3H2L", len(entry.comment), entry.disk, 0, entry.attributes, offset)
        shared = entry.shared()
        directory += b"PK\1\2" + struct.pack("<H", 0x30A) + shared[:26] + rest + shared[26:] + entry.comment
    written += gap
    values: dict[str, Any] = {
        "disk": 0,
        "first_disk": 0,
        "here": len(entries),
        "count": len(entries),
        "length": len(directory),
        "start": len(written),
        "comment": b"",
    } | end
    comment = values.pop("comment")
    last = struct.pack("<4H2LH", *values.values(), len(comment)) + comment
    return bytes(written + directory + b"PK\5\6" + last + after)


def entries_of(bundle: Path) -> list[Entry]:
    """The entries of a bundle as `slmx pack` writes them."""
    names = [MANIFEST_FILE, *sorted(Bundle.open(bundle).manifest.files)]
    return [Entry(name.encode(), (bundle / name).read_bytes()) for name in names]
