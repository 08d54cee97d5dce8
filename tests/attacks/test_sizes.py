"""Numbers near 2^63, depth without end and keys that are there twice are refused by every reader, in little memory."""

from __future__ import annotations

import json
import re
import struct

import pytest

from tests.attacks.conftest import GetReader, refusal
from tests.reliability.reader import fault_of
from tests.reliability.readers import READERS

HUGE = 2**63


def npy(shape: str) -> bytes:
    head = f"{{'descr': '<u2', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head


def safetensors(header: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header


def tensor(shape: list[int], offsets: list[int]) -> bytes:
    return safetensors(json.dumps({"wte.weight": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}).encode())


SIZES = {
    "a header of 2^64 - 1 bytes": ("checkpoint-weights", safetensors(b"{}", 2**64 - 1), "not a whole safetensors file"),
    "a tensor of 2^63 numbers": ("checkpoint-weights", tensor([HUGE], [0, 4]), "not a whole safetensors file"),
    "sizes whose product is 0 in 64 bits": (
        "checkpoint-weights",
        tensor([2**32, 2**32], [0, 0]),
        "not a whole safetensors file",
    ),
    "a tensor that is there twice": (
        "checkpoint-weights",
        safetensors(
            b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
        ),
        "safetensors",
    ),
    "a shard of 2^63 ids": ("shard", npy(f"({HUGE},)"), "train-00000.npy is no array"),
    "a shard of -1 ids": ("shard", npy("(-1,)"), "train-00000.npy is no array"),
    "a shard of 2^40 ids": ("shard", npy(f"({2**40},)"), "train-00000.npy is no array"),
    "a shard with a program as header": ("shard", npy("__import__('os').getpid()"), "train-00000.npy is no array"),
    "2^63 tensors in a GGUF": (
        "import-gguf",
        b"GGUF" + struct.pack("<IQQ", 3, HUGE, HUGE),
        "not a whole GGUF file (more than 65,536 entries)",
    ),
    "sizes of llama2.c near 2^31": (
        "import-bin",
        struct.pack("<7i", 2**31 - 2, 2**31 - 2, 2**31 - 1, 1, 1, 2**31 - 1, 2**31 - 1).ljust(300, b"\0"),
        "model.bin: 300 bytes, and a model of llama2.c with these sizes has",
    ),
    "a token of 2^31 - 1 bytes": (
        "import-tokenizer-bin",
        struct.pack("<ifi", 9, 0.0, 2**31 - 1),
        "token 0 has 2,147,483,647 bytes",
    ),
    "a rank of 5,000 digits": ("ranks", b"AA== " + b"9" * 5000, "line 1 is not a base64 token and its rank"),
}


@pytest.mark.parametrize("attack", SIZES)
def test_a_huge_size_is_refused(attack: str, reader: GetReader) -> None:
    name, content, line = SIZES[attack]
    assert line in refusal(reader(name), content)


def test_a_shape_whose_weights_no_number_can_count_is_refused(reader: GetReader) -> None:
    read = reader("import-gguf")
    (seed,), key = read.seeds, b"gpt2.embedding_length"
    at = seed.index(key) + len(key) + 4
    line = refusal(read, seed[:at] + struct.pack("<I", 2**32 - 8) + seed[at + 4 :])
    assert line.endswith("the shape of the model is too large for any memory; correct the shape")


def changes(seed: bytes) -> list[bytes]:
    """A whole content of JSON with every kind of attack on its parser."""
    text = json.dumps(json.loads(seed.splitlines()[0] if b"}\n{" in seed else seed))
    numbers = [*re.finditer(r"(?<=: )-?\d+(\.\d+)?(?=[,}])", text)]
    huge = [
        text[: found.start()] + new + text[found.end() :]
        for found in numbers[:12]
        for new in (str(HUGE), "-1", "1e999", "9" * 5000, "NaN", "[" * 50)
    ]
    key = re.search(r'"[^"]*": ', text)
    twice = [] if key is None else [f"{text[: key.start()]}{key.group()}0, {text[key.start() :]}"]
    deep = ["[" * 100_000, '{"a":' * 100_000, text[:-1] + ', "a": ' + "[" * 100_000]
    return [change.encode() for change in (*huge, *twice, *deep)]


@pytest.mark.parametrize("name", READERS)
def test_numbers_depth_and_keys_of_json(name: str, reader: GetReader) -> None:
    read = reader(name)
    if not read.is_json:
        pytest.skip("it reads no JSON")
    for content in (change for seed in read.seeds for change in changes(seed)):
        assert fault_of(read, content) is None, content[:200]
