"""Reads the layout of a GGUF file: its metadata, and where its tensors are.

The layout is that of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The reader of the `gguf` package
believes every length in a file, and some make it read without end. Here each length is compared with what is left of
the file.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MAGIC = b"GGUF"
VERSIONS = (2, 3)
# The kinds of values, and the code of `struct` for each kind of number.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, ARRAY = 8, 9
MOST_ENTRIES = 2**16  # of metadata, and of tensors; a model of 512 layers has 5,000 tensors
MOST_ITEMS = 2**20  # of an array that is read: tokens, merges
MOST_DIMENSIONS = 4
ALIGNMENT = 32


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in the file.

    Attributes:
        name: Its name.
        kind: The number of its type.
        shape: Its sizes, the innermost first.
        offset: Where its data begins, relative to the data of all tensors.
    """

    name: str
    kind: int
    shape: tuple[int, ...]
    offset: int


class GGUFFile:
    """A GGUF file, memory-mapped.

    Attributes:
        tensors: Its tensors.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no GGUF file of a known version, or it is damaged.
    """

    def __init__(self, source: Path) -> None:
        self._data: npt.NDArray[np.uint8] = np.memmap(source, np.uint8, "r")
        if self._bytes(0, 4) != MAGIC:
            raise ValueError("it does not begin as one")
        version, tensors, entries = self._unpack("<IQQ", 4)
        if version not in VERSIONS:
            raise ValueError(f"version {version}, and slmx reads {' and '.join(map(str, VERSIONS))}")
        if max(tensors, entries) > MOST_ENTRIES:
            raise ValueError(f"more than {MOST_ENTRIES:,} entries")
        at = 4 + struct.calcsize("<IQQ")
        self._entries: dict[str, tuple[int, int]] = {}  # the kind of each value, and where it is
        for _ in range(entries):
            key, at = self._text(at)
            (kind,), at = self._unpack("<I", at), at + 4
            if key in self._entries:
                raise ValueError(f"the metadata {key[:60]!a} is there twice")
            self._entries[key] = kind, at
            at = self._after(kind, at)
        self.tensors = []
        for _ in range(tensors):
            tensor, at = self._tensor(at)
            self.tensors.append(tensor)
        if len({tensor.name for tensor in self.tensors}) < tensors:
            raise ValueError("a tensor is there twice")
        alignment = self.value("general.alignment") if "general.alignment" in self._entries else ALIGNMENT
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise ValueError("its alignment is no power of two")
        self._start = math.ceil(at / alignment) * alignment

    def __contains__(self, key: str) -> bool:
        """Returns whether the metadata has a key."""
        return key in self._entries

    def value(self, key: str) -> Any:  # noqa: ANN401  # numbers, texts and lists of them
        """Returns a value of the metadata; ValueError if it cannot be read, or is a list of lists or too long."""
        kind, at = self._entries[key]
        return self._value(kind, at)[0]

    def data(self, tensor: StoredTensor, size: int) -> npt.NDArray[np.uint8]:
        """Returns the bytes of a tensor that has `size` bytes; ValueError if the file is too short for them."""
        start = self._start + tensor.offset
        if start + size > len(self._data):
            raise ValueError(f"{tensor.name[:60]!a} is cut off")
        return self._data[start : start + size]

    def _bytes(self, at: int, size: int) -> bytes:
        if at + size > len(self._data):
            raise ValueError("it is cut off")
        return self._data[at : at + size].tobytes()

    def _unpack(self, form: str, at: int) -> tuple[Any, ...]:
        return struct.unpack(form, self._bytes(at, struct.calcsize(form)))

    def _text(self, at: int) -> tuple[str, int]:
        """Returns a text and the place after it."""
        (size,) = self._unpack("<Q", at)
        return self._bytes(at + 8, size).decode("utf-8"), at + 8 + size

    def _after(self, kind: int, at: int) -> int:
        """Returns the place after a value."""
        if kind in NUMBERS:
            after: int = at + struct.calcsize(f"<{NUMBERS[kind]}")
        elif kind == TEXT:
            after = at + 8 + self._unpack("<Q", at)[0]
        elif kind == ARRAY:
            inner, count = self._unpack("<IQ", at)
            after = at + 12
            if inner in NUMBERS:
                after += count * struct.calcsize(f"<{NUMBERS[inner]}")
            elif inner == TEXT and count <= MOST_ITEMS:
                for _ in range(count):
                    after = self._after(inner, after)
            else:
                raise ValueError("an array of arrays, or too long")
        else:
            raise ValueError(f"a value of the unknown kind {kind}")
        if after > len(self._data):
            raise ValueError("it is cut off")
        return after

    def _value(self, kind: int, at: int) -> tuple[Any, int]:
        """Returns a value and the place after it. `_after` has accepted it."""
        if kind == TEXT:
            return self._text(at)
        if kind != ARRAY:
            return self._unpack(f"<{NUMBERS[kind]}", at)[0], self._after(kind, at)
        inner, count = self._unpack("<IQ", at)
        after = at + 12
        if count > MOST_ITEMS:
            raise ValueError(f"more than {MOST_ITEMS:,} items")
        if inner in NUMBERS:
            return list(self._unpack(f"<{count}{NUMBERS[inner]}", after)), self._after(kind, at)
        items = []
        for _ in range(count):
            item, after = self._text(after)
            items.append(item)
        return items, after

    def _tensor(self, at: int) -> tuple[StoredTensor, int]:
        """Returns a tensor and the place after its description."""
        name, at = self._text(at)
        (count,) = self._unpack("<I", at)
        if count > MOST_DIMENSIONS:
            raise ValueError(f"{name[:60]!a} has {count} dimensions")
        *shape, kind, offset = self._unpack(f"<{count}QIQ", at + 4)
        return StoredTensor(name, kind, tuple(shape), offset), at + 4 + 8 * count + 12
