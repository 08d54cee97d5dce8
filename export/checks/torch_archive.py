"""Checks a TorchScript or .pt2 file before PyTorch reads it, and refuses a file that slmx did not write.

Both are zip archives. `torch.export.load` runs code from a .pt2 file in several ways: it unpickles members that the
archive marks as pickled, it evaluates symbolic sizes as Python expressions, it compiles guards and names into Python
source, it looks up functions by name, and it loads compiled libraries. The files of slmx need no pickled members or
libraries, and only simple forms of the others. Everything else is refused. The layout is that of
torch/export/pt2_archive and torch/_export/serde/schema.py in PyTorch 2.13.

These checks make attacks harder, but they are not a sandbox. TorchScript is a program, and PyTorch runs it. Therefore
`export.checks.torch_session` also asks whether the file is trusted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import torch

from runtimes.bundle.variants import VARIANTS
from slm.console.errors import SlmxError
from slm.storage.read_errors import reason_of

# Names of members that hold text or a small pickle, and of members that hold tensors, without the root folder.
_COMMON = r"byteorder|\.data/version|\.data/serialization_id"
_PT2_TEXT = re.compile(
    r"models/model\.json|data/weights/model_weights_config\.json|data/constants/model_constants_config\.json|"
    rf"archive_format|archive_version|{_COMMON}",
    re.ASCII,
)
_PT2_TENSORS = re.compile(r"data/weights/weight_\d+|data/constants/tensor_\d+", re.ASCII)
_PT2_SAMPLE_INPUTS = "data/sample_inputs/model.pt"
_SCRIPT_TEXT = re.compile(rf"data\.pkl|constants\.pkl|code/[\w/]+\.py(\.debug_pkl)?|version|{_COMMON}", re.ASCII)
_SCRIPT_TENSORS = re.compile(r"constants/\d+", re.ASCII)
MAX_TEXT_BYTES = 16 * 2**20

# The only functions that the graph of a model calls. permute and unbind are those of earlier bundles.
_OPERATORS = frozenset(
    {"_operator.add", "torch.ops.aten._assert_tensor_metadata.default", "torch.ops.aten.__and__.Tensor"}
    | {
        f"torch.ops.aten.{name}"
        for name in (
            *("add.Tensor", "arange.default", "arange.start", "arange.start_step", "cat.default", "chunk.default"),
            *("cos.default", "div.Tensor", "embedding.default", "gelu.default", "gt.Tensor", "layer_norm.default"),
            *("le.Tensor", "linear.default", "mul.Tensor", "outer.default", "permute.default", "pow.Scalar"),
            *("reciprocal.default", "relu.default", "reshape.default", "rms_norm.default"),
            *("scaled_dot_product_attention.default", "silu.default", "sin.default", "split_with_sizes.default"),
            *("sub.Tensor", "sym_size.int", "to.dtype", "transpose.int", "type_as.default", "unbind.int"),
            *("unsqueeze.default", "view.default"),
        )
    }
)
# PyTorch evaluates or compiles these strings. Every other string of a program must be a plain name.
_GUARD_PART = r"L\['\w+'\](?:\[\d+\])?\.size\(\)\[\d+\]|[ ()+]|=="
_EXPRESSION_PART = r"(?:Add|Mul|Integer|Symbol)\(|'s\d+'|positive=True|integer=True|-?\d{1,12}(?!\d)|\)|, "
_TREE_PART = r'[\[\]{}:, ]|\d|"(?:type|context|children_spec|builtins\.(?:tuple|list|dict)|null|\[\])"|null'
_EVALUATED = {
    "expr_str": re.compile(f"(?:{_EXPRESSION_PART})+", re.ASCII),
    "guards_code": re.compile(f"(?:{_GUARD_PART})+", re.ASCII),
    "in_spec": re.compile(f"(?:{_TREE_PART})+", re.ASCII),
    "out_spec": re.compile(f"(?:{_TREE_PART})+", re.ASCII),
}
_PLAIN = re.compile(r"[\w.+]*", re.ASCII)
# Fields that must be missing or empty: functions, graphs and objects that are looked up or built by name.
_EMPTY = frozenset(
    {"metadata", "as_operator", "as_graph", "as_custom_obj", "custom_obj_values", "treespec_namedtuple_fields"}
)


def check_torch_archive(variant: str, where: Path | str, file: IO[bytes]) -> None:
    """Refuses a TorchScript or .pt2 file that holds something that slmx does not write.

    The archive is read by the class that PyTorch's loaders use, so that both see the same members.

    Args:
        variant: "torchscript" or "pt2".
        where: The file's name, for error messages.
        file: The open file. It is at its start again when this function returns.

    Raises:
        SlmxError: The file is not a zip archive of the expected layout, or it holds pickled, custom or opaque parts,
            sample inputs, a compiled library, or a program that calls other functions than a slmx model does.
    """
    assert VARIANTS[variant].is_torch
    try:
        reason = _reason_to_refuse(variant, file)
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = f"is no archive that slmx writes ({type(error).__name__}: {reason_of(error)})"
    if reason is not None:
        raise SlmxError(f"{where}: {reason}; it was not loaded. Export the bundle again with slmx export")
    file.seek(0)


def _reason_to_refuse(variant: str, file: IO[bytes]) -> str | None:
    """Returns why a file must not be loaded, or None. If it is not an archive, its readers raise their own errors."""
    archive_bytes = file.seek(0, 2)
    file.seek(0)
    archive = torch._C.PyTorchFileReader(file)
    names = archive.get_all_records()
    # PyTorch ignores case when it looks up names.
    if len({name.casefold() for name in names}) != len(names):
        return "holds a name twice"
    text, tensors = (_SCRIPT_TEXT, _SCRIPT_TENSORS) if variant == "torchscript" else (_PT2_TEXT, _PT2_TENSORS)
    for name in names:
        size = archive.get_record_size(name)
        if name == _PT2_SAMPLE_INPUTS and variant == "pt2":
            if size:
                return "holds sample inputs, which PyTorch unpickles"
        elif text.fullmatch(name):
            if size > MAX_TEXT_BYTES:
                return f"holds {size:,} bytes in {name!r}, more than {MAX_TEXT_BYTES:,}"
        elif not tensors.fullmatch(name):
            return f"holds {name!r}, which slmx does not write and PyTorch may run as code"
        elif not 0 < size < archive_bytes:
            return f"holds {size:,} bytes in {name!r}, but the archive has {archive_bytes:,}"
    return None if variant == "torchscript" else _reason_to_refuse_pt2(archive, set(names))


def _reason_to_refuse_pt2(archive: torch._C.PyTorchFileReader, names: set[str]) -> str | None:
    for kind in ("weights", "constants"):
        config = json.loads(archive.get_record(f"data/{kind}/model_{kind}_config.json"))
        for name, entry in config["config"].items():
            if entry["use_pickle"] is not False or f"data/{kind}/{entry['path_name']}" not in names:
                return f"asks PyTorch to unpickle {name!r}"
        if (reason := _harm(config)) is not None:
            return reason
    return _harm(json.loads(archive.get_record("models/model.json")))


def _harm(document: object) -> str | None:
    """Returns what the first harmful field of a JSON document would make PyTorch do, or None if all are harmless."""
    for key, value in _fields(document):
        if key in _EMPTY and value:
            return f"names functions or objects of its own ({key})"
        if key == "target" and value not in _OPERATORS:
            return f"calls {value!r}"
        if isinstance(value, str) and not _EVALUATED.get(key, _PLAIN).fullmatch(value):
            return f"holds {value[:40]!r} as {key or 'a name'}, which PyTorch may run as code"
        if not _PLAIN.fullmatch(key):
            return f"holds the name {key[:40]!r}, which PyTorch may run as code"
    return None


def _fields(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Yields each value of a JSON document with its key, including the values inside dictionaries and lists."""
    yield key, value
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _fields(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _fields(item, key)
