"""Looks for what would take PyTorch very long or very much memory in a file of torch.save, before PyTorch reads it."""

from __future__ import annotations

import io
import os
import pickletools
from pathlib import Path
from typing import IO

import torch

ZIP = b"PK\x03\x04"
PROGRAM = "data.pkl"
# The older format is five pickles and then numbers: a mark, a version, the machine, the content, the names of storages.
OLDER_PICKLES = 5
LONGEST_GLOBAL = 200  # characters of the module and the name of a class; a very long one makes PyTorch's message slow
# How often a tuple may be named again. With two names in each, a tuple of tuples takes 2^n steps to hash.
MOST_TUPLES_AGAIN = 32
TUPLES = ("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")
PUTS, GETS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), ("GET", "BINGET", "LONG_BINGET")


def check_torch_file(source: Path) -> None:
    """Checks a file of torch.save, without unpickling it.

    Raises:
        Exception: The file is damaged, or takes much more time or memory than its size. torch's and pickle's readers
            raise many kinds of exceptions.
    """
    with source.open("rb") as file:
        is_archive = file.read(len(ZIP)) == ZIP
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        for _ in range(0 if is_archive else OLDER_PICKLES):
            if file.peek(1):  # a pickle of another program is alone, and PyTorch says what it is
                _check_pickle(file)
    if is_archive:
        archive = torch._C.PyTorchFileReader(str(source))
        total = sum(map(archive.get_record_size, archive.get_all_records()))
        if total > size:  # torch.save packs nothing
            raise ValueError(f"an archive with {total:,} bytes of content, more than itself")
        _check_pickle(io.BytesIO(archive.get_record(PROGRAM)))


def _check_pickle(file: IO[bytes]) -> None:
    """Reads the commands of a pickle up to its end; ValueError if PyTorch would need very long for them."""
    tuples: set[object] = set()
    on_top, puts, again = False, 0, 0
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "GLOBAL" and len(str(argument)) > LONGEST_GLOBAL:
            raise ValueError(f"a class with a name of {len(str(argument)):,} characters")
        if opcode.name in PUTS:
            if on_top:
                tuples.add(puts if opcode.name == "MEMOIZE" else argument)
            puts += 1
            continue
        on_top = opcode.name in TUPLES or (opcode.name in GETS and argument in tuples)
        again += on_top and opcode.name in GETS
        if again > MOST_TUPLES_AGAIN:
            raise ValueError("tuples in tuples in tuples")
