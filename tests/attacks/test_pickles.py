"""A pickle in place of any file that slmx reads is never unpickled."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.attacks.conftest import GetReader, outside, refusal
from tests.reliability.reader import fault_of
from tests.reliability.readers import READERS


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.path), "w")


def plain(path: Path) -> bytes:
    return pickle.dumps(Payload(path), 2)


def of_torch(path: Path, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    content = {"model": {"wte.weight": torch.zeros(2, 2)}, "trick": Payload(path)}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def of_older_torch(path: Path) -> bytes:
    return of_torch(path, zipped=False)


def of_numpy(path: Path) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Payload(path)], object), allow_pickle=True)
    return file.getvalue()


FORMS = (plain, of_torch, of_older_torch, of_numpy)
LINES: dict[tuple[str, Callable[[Path], bytes]], str] = {
    ("import-pt", of_torch): "holds more than tensors and plain values, and reading that can run code",
    ("import-pt", of_older_torch): "holds more than tensors and plain values, and reading that can run code",
    ("import-pt", plain): "holds more than tensors and plain values, and reading that can run code",
    ("import-weights", of_torch): "not a whole safetensors file",
    ("checkpoint-weights", of_torch): "not a whole safetensors file",
    ("checkpoint-record", plain): "not a training record",
    ("ranks", plain): "not a tiktoken rank file",
    ("shard", of_numpy): "train-00000.npy is no array",
    ("shard", plain): "train-00000.npy is no array",
    ("onnx", plain): "not a model that slmx opens",
    ("pt2", of_torch): "which slmx does not write and PyTorch may run as code; it was not loaded",
    ("archive", of_torch): "make one with slmx pack",
    ("signature", plain): "not a signature that slmx reads",
    ("public-key", plain): "not a public key in PEM",
}


def test_the_payload_works(tmp_path: Path) -> None:
    pickle.loads(plain(outside(tmp_path))).close()
    assert outside(tmp_path).exists()


@pytest.mark.parametrize("name", READERS)
def test_no_reader_unpickles(name: str, reader: GetReader, tmp_path: Path) -> None:
    read = reader(name)
    for form in FORMS:
        assert fault_of(read, form(outside(tmp_path))) is None
        assert not outside(tmp_path).exists()


@pytest.mark.parametrize(("name", "form"), LINES)
def test_the_line_says_what_the_file_is_not(
    name: str, form: Callable[[Path], bytes], reader: GetReader, tmp_path: Path
) -> None:
    assert LINES[name, form] in refusal(reader(name), form(outside(tmp_path)))
