"""A small file that would become a large one in memory, or be read without end, is refused before that happens."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable

import pytest
import torch

from tests.attacks.conftest import GetReader, refusal

U8, TEXT, ARRAY = 0, 8, 9


def of_torch(tensor: torch.Tensor) -> bytes:
    file = io.BytesIO()
    torch.save({"model": {"wte.weight": tensor}, "model_args": {"n_head": 1}}, file)
    return file.getvalue()


def deflated() -> bytes:
    """A file of torch.save that a zip program packed again, with 50 MB of zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(of_torch(torch.zeros(2)))) as stored:
        names = stored.namelist()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in names:
            packed.writestr(name, bytes(50_000_000) if name.endswith("data/0") else b"3\n")
    return file.getvalue()


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(*entries: bytes, tensors: bytes = b"", count: int = 0, data: bytes = b"") -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", 3, count, 1 + len(entries))
    head += text("general.architecture") + struct.pack("<I", TEXT) + text("llama") + b"".join(entries) + tensors
    return head.ljust(-(-len(head) // 32) * 32, b"\0") + data


def array(kind: int, count: int, items: bytes = b"") -> bytes:
    return text("tokenizer.ggml.tokens") + struct.pack("<IIQ", ARRAY, kind, count) + items


def tensor(name: str, *shape: int, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, offset)


def pickled(program: bytes, *, older: bool) -> bytes:
    """A file of torch.save with a pickle of its own."""
    if older:
        file = io.BytesIO()
        torch.save({}, file, _use_new_zipfile_serialization=False)
        content = file.getvalue()
        return content.replace(b"\x80\x02}q\x00.\x80\x02]q\x00.", b"\x80\x02" + program + b".\x80\x02]q\x00.")
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in {"data.pkl": b"\x80\x02" + program + b".", "version": b"3\n"}.items():
            archive.writestr(f"archive/{name}", content)
    return made.getvalue()


def doubled() -> bytes:
    """A dictionary whose key is a tuple that has the one before twice. Its hash takes 2^60 steps."""
    levels = 60
    twice = (bytes([ord("h"), level, ord("h"), level, 0x86, ord("q"), level + 1]) for level in range(levels))
    return b")q\x00" + b"".join(twice) + b"}(h" + bytes([levels]) + b"K\x01u"


BOMBS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "a tensor of one number that is 10^12": (
        "import-pt",
        lambda: of_torch(torch.zeros(1).expand(10**6, 10**6)),
        "'wte.weight' is larger than what is stored; save the weights as they are",
    ),
    "a sparse tensor of 10^12": (
        "import-pt",
        lambda: of_torch(torch.sparse_coo_tensor(torch.zeros(2, 0), [], (10**6, 10**6), check_invariants=False)),
        "'wte.weight' is no float tensor",
    ),
    "a tensor without numbers": (
        "import-pt",
        lambda: of_torch(torch.zeros(10**6, 10**6, device="meta")),
        "'wte.weight' is no float tensor",
    ),
    "a packed file of torch.save": ("import-pt", deflated, "bytes of content, more than itself)"),
    "layers without number": (
        "import-config",
        lambda: json.dumps(
            {
                "model_type": "gpt_neo",
                "num_layers": 1,
                "max_position_embeddings": 8,
                "num_heads": 1,
                "hidden_size": 8,
                "attention_types": [[["local"] * 1000, 10_000]] * 50,
            }
        ).encode(),
        "slmx computes lists of global and local layers only",
    ),
    "a class with a very long name": (
        "import-pt",
        lambda: pickled(b"ctorch\n" + b"a" * 500_000 + b"\n", older=False),
        "a class with a name of 500,006 characters",
    ),
    "a class with a very long name in the older format": (
        "import-pt",
        lambda: pickled(b"ctorch\n" + b"a" * 500_000 + b"\n", older=True),
        "a class with a name of 500,006 characters",
    ),
    "a tuple of 2^60 tuples": ("import-pt", lambda: pickled(doubled(), older=False), "(tuples in tuples in tuples)"),
    "a tuple of 2^60 tuples in the older format": (
        "import-pt",
        lambda: pickled(doubled(), older=True),
        "(tuples in tuples in tuples)",
    ),
    "an array of 2^62 numbers": (
        "import-gguf",
        lambda: gguf(array(U8, 2**62)),
        "not a whole GGUF file (it is cut off)",
    ),
    "an array of 2^62 texts": (
        "import-gguf",
        lambda: gguf(array(TEXT, 2**62)),
        "not a whole GGUF file (an array of arrays, or too long)",
    ),
    "arrays in arrays": (
        "import-gguf",
        lambda: gguf(array(ARRAY, 1, struct.pack("<IQ", ARRAY, 1) * 100_000)),
        "not a whole GGUF file (an array of arrays, or too long)",
    ),
    "a text of 2^63 bytes": (
        "import-gguf",
        lambda: gguf(text("a") + struct.pack("<IQ", TEXT, 2**63)),
        "not a whole GGUF file (it is cut off)",
    ),
    "a key that is there twice": (
        "import-gguf",
        lambda: gguf(*[text("a") + struct.pack("<IB", U8, 1)] * 2),
        "not a whole GGUF file (the metadata 'a' is there twice)",
    ),
    "tensors that share their bytes": (
        "import-gguf",
        lambda: gguf(tensors=tensor("a", 512) + tensor("b", 512), count=2, data=bytes(2048)),
        "'b' is cut off, or shares its bytes with another tensor",
    ),
    "a tensor of 2^126 numbers": (
        "import-gguf",
        lambda: gguf(tensors=tensor("a", 2**63, 2**63), count=1, data=bytes(64)),
        "'a' is cut off, or shares its bytes with another tensor",
    ),
    "a tensor of 100 dimensions": (
        "import-gguf",
        lambda: gguf(tensors=tensor("a", *[1] * 100), count=1, data=bytes(64)),
        "not a whole GGUF file ('a' has 100 dimensions)",
    ),
    "an architecture that is a list": (
        "import-gguf",
        lambda: gguf().replace(
            struct.pack("<I", TEXT) + text("llama"), struct.pack("<IIQ", ARRAY, U8, 5) + bytes(1) * 5
        ),
        "a GGUF of the architecture [0, 0, 0, 0, 0]",
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused(bomb: str, reader: GetReader) -> None:
    name, make, line = BOMBS[bomb]
    assert line in refusal(reader(name), make())
