"""Reads a bundle from a zip archive without unpacking it."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slm.errors import SlmxError

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 1  # bit in the flags of an entry
# The exceptions that `zipfile` raises for damaged archives.
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    UnicodeError,
    ValueError,
    OverflowError,
)


class ZipStore:
    """The files of a zip archive, with the same names as in the folder of a bundle.

    An entry is decompressed only if its stated size is at most the size that the manifest lists, and never beyond that
    size.
    """

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        with self._opened() as opened:
            self._entries = {info.filename: info for info in opened.infolist() if not info.is_dir()}
            files = [info.filename for info in opened.infolist() if not info.is_dir()]
        if len({name.casefold() for name in files}) < len(files):
            raise SlmxError(f"{archive}: a name is in the archive twice; pack the bundle again")

    @contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        try:
            with zipfile.ZipFile(self._archive) as opened:
                yield opened
        except OSError as error:
            raise SlmxError(f"{self._archive}: cannot read ({error.strerror or error}); copy it again") from None
        except DAMAGED as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise SlmxError(
                f"{self._archive}: neither the folder of a bundle nor a whole zip archive of one ({reason}); "
                "copy it again, or make one with slmx export"
            ) from None

    def location(self, name: str) -> str:
        """Returns where a file is, for messages."""
        return f"{self._archive}:{name}"

    def read(self, name: str, most: int) -> bytes:
        """Returns the bytes of a file, as in `runtimes.bundle.store.Store`."""
        info = self._entries.get(name)
        if info is None:
            raise SlmxError(f"{self.location(name)}: missing from the archive; pack the bundle again, whole")
        if info.file_size > most:
            raise SlmxError(f"{self.location(name)}: {info.file_size:,} bytes, {most:,} at most; pack the bundle again")
        if info.compress_type not in METHODS or info.flag_bits & ENCRYPTED:
            raise SlmxError(f"{self.location(name)}: packed in a way that slmx does not read; pack it as plain zip")
        with self._opened() as opened, opened.open(info) as file:
            return file.read(most + 1)

    def names(self) -> list[str]:
        """Returns the names of all files in the archive, sorted."""
        return sorted(self._entries)
