"""Reads the weights of a Hugging Face folder: safetensors, alone or with an index, or pytorch_model.bin."""

from __future__ import annotations

import shlex
from pathlib import Path

from torch import Tensor

from slm.checkpoint import read_tensors
from slm.console.errors import SlmxError
from slm.importers.names import BUFFERS
from slm.importers.pytorch_file import float_tensors, load_tensors_only
from slm.storage.file_names import JSON_FILE, WEIGHTS_FILE
from slm.storage.json_reader import Fields, is_plain_name, read_json
from slm.storage.read_errors import unreadable

INDEX_FILE = "model.safetensors.index.json"
PICKLED_FILE = "pytorch_model.bin"
MAX_JSON_BYTES = 2**24
POINTER, LARGEST_POINTER = b"version https://git-lfs.", 1024
# Files that slmx imports by themselves, the usual ones first, files that transformers joins, and others of which slmx
# reads none.
WHOLE_MODELS = ("*.gguf", "ckpt.pt", "*.pt", "*.pth", "*.ckpt")
PICKLED_PARTS = "pytorch_model-*.bin"
OTHER_WEIGHTS = ("*.h5", "*.msgpack", "*.bin")
TOKENIZER_FILES = (JSON_FILE, "vocab.json", "tokenizer.bin")


def read_weights(source: Path, prefix: str, tokenizer: Path | None) -> dict[str, Tensor]:
    """Reads the tensors of a folder.

    Args:
        source: The folder.
        prefix: Is removed from their names.
        tokenizer: The one that was given with the folder, for advice.
    """
    if (source / WEIGHTS_FILE).is_file():
        tensors = read_tensors(source / WEIGHTS_FILE, BUFFERS)
    elif (source / INDEX_FILE).is_file():
        tensors = _read_shards(source)
    elif (source / PICKLED_FILE).is_file():
        tensors = float_tensors(load_tensors_only(source / PICKLED_FILE), source / PICKLED_FILE)
    else:
        raise _no_weights(source, tokenizer)
    found = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    if len(found) < len(tensors):
        raise SlmxError(f"{source}: its weights hold a tensor twice, with and without {prefix!r} before its name")
    return found


def refuse_pointers(source: Path) -> None:
    """Raises SlmxError if a file of the folder is a pointer of Git LFS, which stands for a file not downloaded."""
    for path in sorted(source.iterdir()):
        if path.is_file() and path.stat().st_size < LARGEST_POINTER and path.read_bytes().startswith(POINTER):
            raise SlmxError(f"{path}: a pointer of Git LFS, not the file itself; run git lfs pull in its folder")


def whole_model(source: Path, tokenizer: Path | None) -> str | None:
    """Returns advice to import a file of the folder that is a model by itself; None if there is none.

    Args:
        source: The folder.
        tokenizer: The one that was given with the folder. None to take that of the folder or of the file.
    """
    found = _first(source, *WHOLE_MODELS)
    if found is None:
        return None
    words = [shlex.quote(str(found))]
    if tokenizer is not None:
        words += ["--tokenizer", shlex.quote(str(tokenizer))]
    elif found.suffix != ".gguf":
        here = _first(source, *TOKENIZER_FILES) is not None
        words += ["--tokenizer", shlex.quote(str(source)) if here else "TOKENIZER_FOLDER"]
    return f"name the file {found.name} itself: slmx import {' '.join(words)} --out DIR"


def _no_weights(source: Path, tokenizer: Path | None) -> SlmxError:
    missing = f"{source}: no {WEIGHTS_FILE} and no {PICKLED_FILE} here"
    if advice := whole_model(source, tokenizer):
        return SlmxError(f"{missing}; {advice}")
    if part := _first(source, PICKLED_PARTS):
        return SlmxError(
            f"{missing}; {part.name} is pickled, and reading it can run code. If you trust it, transformers converts "
            "it: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW, safe_serialization=True), and "
            "AutoTokenizer.from_pretrained(DIR).save_pretrained(NEW)"
        )
    other = _first(source, *OTHER_WEIGHTS)
    found = "" if other is None else f", only {other.name}"
    return SlmxError(f"{missing}{found}; slmx reads these two: get the model in one of them")


def _first(source: Path, *patterns: str) -> Path | None:
    return next((path for pattern in patterns for path in sorted(source.glob(pattern)) if path.is_file()), None)


def _read_shards(source: Path) -> dict[str, Tensor]:
    """Reads each tensor of an index from the file that the index names for it."""
    path = source / INDEX_FILE
    stored = read_json_object(path, "an index of safetensors files")
    try:
        listed = Fields(stored).object("weight_map")
        files = {name: listed.text(name) for name in listed}
    except ValueError as error:
        raise SlmxError(f"{path}: not an index of safetensors files ({error}); download the folder again") from None
    if not files:
        raise SlmxError(f"{path}: lists no tensor; download the folder again")
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(files.values())):
        if not is_plain_name(file) or not file.endswith(".safetensors"):
            raise SlmxError(
                f"{path}: lists {shown_value(file)}, which is no safetensors file of this folder; repair the index"
            )
        if not (source / file).is_file():
            raise SlmxError(f"{source / file}: missing, but {INDEX_FILE} lists it; download the folder again, whole")
        found = read_tensors(source / file, BUFFERS)
        for name in (name for name, where in files.items() if where == file and not name.endswith(BUFFERS)):
            if name not in found:
                raise SlmxError(
                    f"{source / file}: holds no {shown_value(name)}, but {INDEX_FILE} says so; download it again"
                )
            tensors[name] = found[name]
    return tensors


def read_json_object(path: Path, what: str) -> dict[str, object]:
    """Returns a JSON object; SlmxError that says that the file is not `what` if it holds none."""
    try:
        values = read_json(path, MAX_JSON_BYTES)
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise SlmxError(f"{path}: not {what} ({error}); download the folder again") from None
    if not isinstance(values, dict):
        raise SlmxError(f"{path}: not {what} (no JSON object); download the folder again")
    return values


def shown_value(value: object) -> str:
    """Formats a JSON value for one line of a message."""
    return ascii(value)[:80]
