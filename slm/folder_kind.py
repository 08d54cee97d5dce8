"""Finds what a folder or a file is and which command accepts it, for messages about a path of the wrong kind."""

from __future__ import annotations

import os
import re
import shlex
from contextlib import suppress
from enum import Enum
from pathlib import Path

from slm.console.errors import SlmxError, did_you_mean
from slm.console.plain_text import is_plain_text
from slm.hub.name import HUB
from slm.storage.file_names import (
    CONFIG_FILE,
    DATASET_FILE,
    JSON_FILE,
    MANIFEST_FILE,
    RANKS_FILE,
    RECORD_FILE,
    RUN_FILE,
    WEIGHTS_FILE,
)
from slm.storage.json_reader import read_json
from slm.storage.listing import Listing

MAX_JSON_BYTES = 2**24
# The ending of the files that `slmx pack` writes.
PACKED_SUFFIX = ".slmx"
# The endings of models of other programs in one file, with what else `slmx import` needs, and those of weights.
FOREIGN_SUFFIXES = {**dict.fromkeys((".pt", ".pth", ".bin"), " --tokenizer DIR"), ".gguf": ""}
# The tokenizer of a model of llama2.c, which ends like the model.
LLAMA2C_TOKENIZER = "tokenizer.bin"
MODEL_SUFFIXES = (*FOREIGN_SUFFIXES, ".safetensors", ".onnx")
ZIP_HEADER = 30  # bytes before the name of the first file in a zip archive
# The checkpoints that ship with slmx, each in a folder with the name of its preset.
PRETRAINED = Path(__file__).parent / "pretrained"
# Checkpoints that were made before the first release do not list the state of the optimizer.
CHECKPOINT_LISTING = Listing(CONFIG_FILE, "sha256", unlisted=("optimizer.safetensors",))
# The files that every checkpoint has and lists.
HASHED_FILES = (WEIGHTS_FILE, RANKS_FILE, JSON_FILE, RECORD_FILE)


class Kind(Enum):
    """What a path is, or should be. The value is the name that messages use."""

    CHECKPOINT = "a slmx checkpoint"
    RUN = "a training run"
    HUGGING_FACE = "a Hugging Face folder"
    FOREIGN = "a model of another program"
    BUNDLE = "a bundle"
    PACKED = "a packed bundle"
    DATA_SET = "a prepared data set"
    REPORT = "a report of slmx bench"
    TEXT = "a text of stories"
    PROMPTS = "a file of prompts"
    MODEL = "a checkpoint, run or bundle"
    FILE = "a file"
    EMPTY = "an empty folder"
    FOLDER = "a folder of another kind"
    MISSING = "no such file or folder"


# What to do with a path of the first kind if the second kind is wanted. `{path}` stands for the path, and `{tokenizer}`
# for the option that a model of another program needs.
ADVICE = {
    (Kind.CHECKPOINT, Kind.RUN): "slmx train --init {path} --text STORIES --out NEW fine-tunes it",
    (Kind.CHECKPOINT, Kind.BUNDLE): "slmx export --checkpoint {path} --out NEW makes one",
    (Kind.CHECKPOINT, Kind.HUGGING_FACE): "it needs no import: slmx export --checkpoint {path} takes it",
    (Kind.CHECKPOINT, Kind.TEXT): "slmx export --checkpoint {path} takes it",
    (Kind.RUN, Kind.CHECKPOINT): "it holds no checkpoint yet: slmx train --text STORIES --out NEW makes one",
    (Kind.RUN, Kind.BUNDLE): "slmx export --checkpoint {path} --out NEW makes one",
    (Kind.RUN, Kind.HUGGING_FACE): "it needs no import: slmx export --checkpoint {path} takes it",
    (Kind.RUN, Kind.TEXT): "slmx export --checkpoint {path} takes it",
    (Kind.HUGGING_FACE, Kind.MODEL): "slmx import {path} --out NEW makes a checkpoint",
    (Kind.HUGGING_FACE, Kind.CHECKPOINT): "slmx import {path} --out NEW makes one",
    (Kind.HUGGING_FACE, Kind.RUN): "slmx import {path} --out NEW makes a checkpoint, which slmx train --init takes",
    (Kind.HUGGING_FACE, Kind.BUNDLE): "slmx import {path} --out NEW makes a checkpoint to export",
    (Kind.HUGGING_FACE, Kind.TEXT): "slmx import {path} --out NEW takes it",
    (Kind.FOREIGN, Kind.MODEL): "slmx import {path}{tokenizer} --out NEW makes a checkpoint",
    (Kind.FOREIGN, Kind.CHECKPOINT): "slmx import {path}{tokenizer} --out NEW makes one",
    (
        Kind.FOREIGN,
        Kind.RUN,
    ): "slmx import {path}{tokenizer} --out NEW makes a checkpoint, which slmx train --init takes",
    (Kind.FOREIGN, Kind.BUNDLE): "slmx import {path}{tokenizer} --out NEW makes a checkpoint to export",
    (Kind.FOREIGN, Kind.TEXT): "slmx import {path}{tokenizer} --out NEW takes it",
    (Kind.BUNDLE, Kind.RUN): "name the run that it was exported from",
    (Kind.BUNDLE, Kind.CHECKPOINT): "name the checkpoint that it was exported from",
    (Kind.BUNDLE, Kind.HUGGING_FACE): "slmx generate --bundle {path} takes it",
    (Kind.BUNDLE, Kind.TEXT): "slmx generate --bundle {path} takes it",
    (Kind.PACKED, Kind.RUN): "name the run that it was exported from",
    (Kind.PACKED, Kind.CHECKPOINT): "name the checkpoint that it was exported from",
    (Kind.PACKED, Kind.HUGGING_FACE): "slmx generate --bundle {path} takes it",
    (Kind.PACKED, Kind.TEXT): "slmx generate --bundle {path} takes it",
    (Kind.DATA_SET, Kind.RUN): "slmx train --text {path} --out NEW makes one",
    (Kind.DATA_SET, Kind.MODEL): "slmx train --text {path} --out NEW makes a run",
    (Kind.DATA_SET, Kind.CHECKPOINT): "slmx train --text {path} --out NEW makes one",
    (Kind.DATA_SET, Kind.BUNDLE): "slmx train --text {path} --out NEW makes a checkpoint to export",
    (Kind.DATA_SET, Kind.HUGGING_FACE): "slmx train --text {path} --out NEW takes it",
    (Kind.DATA_SET, Kind.TEXT): "give it to slmx train or slmx evaluate as the only --text",
}
# How to get the wanted kind if the path is of no use. `{out}` stands for the path if a command can write there.
OTHERWISE = {
    Kind.RUN: "slmx train --text STORIES --out {out} makes one",
    Kind.CHECKPOINT: "slmx train --text STORIES --out {out} makes one",
    Kind.BUNDLE: "slmx list shows what is here, and slmx export --checkpoint RUN --out {out} makes one",
    Kind.MODEL: "slmx list shows the bundles that are here",
    Kind.HUGGING_FACE: "name one with config.json, model.safetensors and tokenizer.json",
    Kind.TEXT: "name a text file, a table, or a folder of them",
    Kind.PROMPTS: "name a text file",
    Kind.PACKED: "slmx pack BUNDLE --out {out} makes one",
}

# The kinds that are a model, for a path that may be any of them.
MODELS = (Kind.CHECKPOINT, Kind.RUN, Kind.BUNDLE)
# The folders whose files are not given to commands one by one.
HOLDERS = (*MODELS, Kind.HUGGING_FACE, Kind.DATA_SET)
# Those that have model files in a folder of theirs, `onnx`.
NESTING_HOLDERS = (Kind.BUNDLE, Kind.HUGGING_FACE)
# The folders that list their files: a JSON file of each, and keys of it. Other programs have files of the same names.
LISTED_FOLDERS = {
    Kind.CHECKPOINT: (CONFIG_FILE, {"format_version", "sha256"}),
    Kind.BUNDLE: (MANIFEST_FILE, {"format_version", "variants"}),
    Kind.DATA_SET: (DATASET_FILE, {"format_version", "sources", "files"}),
}


def check_outside(out: Path) -> None:
    """Checks that an output does not go into a checkpoint, a run, a bundle or a data set, at any depth.

    Such a folder lists its files or finds its checkpoints by their names, so another file or folder would damage it.

    Args:
        out: A file or a folder to be made, which may be missing. Symbolic links are followed.

    Raises:
        SlmxError: It does.
    """
    for folder in Path(os.path.realpath(out)).parents:
        kinds = []
        with suppress(PermissionError):  # it can be a folder of somebody else
            kinds += [kind for kind, (file, keys) in LISTED_FOLDERS.items() if keys <= _keys(folder / file)]
            if "data" in _keys(folder / RUN_FILE) and _checkpoints_of_run(folder):
                kinds.append(Kind.RUN)
        if kinds:
            raise SlmxError(
                f"{out}: inside {folder}, {kinds[0].value}, which would then hold something that is not its own; "
                "choose another --out"
            )


def like_a_path(path: Path) -> str:
    """Tells a mistyped path from a name on the hub, OWNER/NAME, by the folders that are here.

    Args:
        path: A path that does not exist.

    Returns:
        The end of an error about the missing path: the nearest one, if there is one, and how to name the hub. "" if no
        folder here is like the path.
    """
    from difflib import get_close_matches

    folder = path.parent
    if not folder.is_dir() and (near := get_close_matches(folder.name, _names(folder.parent), n=1)):
        folder = folder.parent / near[0]
    if folder == Path() or not folder.is_dir():
        return ""
    near = get_close_matches(path.name, _names(folder), n=1)
    if not near and folder != path.parent:
        return ""
    meant = f" (did you mean {folder / near[0]}?)" if near else "; check the path"
    return f"{meant}; {HUB}{path.as_posix()} is the name on the hub"


def _names(folder: Path) -> list[str]:
    """Returns the names of what is in a folder; none if it cannot be read."""
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []


def find_kind(path: Path) -> Kind:
    """Finds what a path is, by the names of the files in it and the keys of its JSON files.

    Args:
        path: Any path. The content of the files is not checked, so a checkpoint can be damaged.

    Raises:
        OSError: The folder cannot be read.
    """
    if not path.exists():
        return Kind.MISSING
    if not path.is_dir():
        if _is_packed(path):
            return Kind.PACKED
        is_model = path.suffix.lower() in FOREIGN_SUFFIXES and path.name != LLAMA2C_TOKENIZER
        return Kind.FOREIGN if is_model and path.is_file() else Kind.FILE
    if "variants" in _keys(path / MANIFEST_FILE):
        return Kind.BUNDLE
    if (path / DATASET_FILE).is_file():
        return Kind.DATA_SET
    if _is_checkpoint(path):
        return Kind.CHECKPOINT
    is_ours = (path / RANKS_FILE).is_file()  # for example a bundle without its manifest
    if not is_ours and _keys(path / CONFIG_FILE) & {"model_type", "architectures"}:
        return Kind.HUGGING_FACE
    if _checkpoints_of_run(path) or "data" in _keys(path / RUN_FILE):
        return Kind.RUN
    if "files" in _keys(path / "files.json") | _keys(path / "report" / "files.json"):
        return Kind.REPORT
    return Kind.FOLDER if any(path.iterdir()) else Kind.EMPTY


def find_checkpoint(path: Path) -> Path:
    """Finds the checkpoint for a path: a checkpoint itself, or the best one of a training run, or else its newest.

    Args:
        path: A checkpoint, a training run, or the name of a checkpoint that ships with slmx, such as "nano". A path
            that exists is taken before a name.

    Returns:
        The folder of the checkpoint. Its content is not checked.

    Raises:
        SlmxError: The path is of another kind, or the run holds no checkpoint. The message says what to do instead.
        OSError: The folder cannot be read.
    """
    if (shipped := find_shipped(path)) is not None:
        return shipped
    kind = find_kind(path)
    if kind is Kind.CHECKPOINT:
        return path
    if kind is Kind.RUN and (found := _checkpoints_of_run(path)):
        return found[0]
    raise wrong_kind(path, Kind.CHECKPOINT)


def find_shipped(path: Path) -> Path | None:
    """Finds the checkpoint that ships with slmx under a name, such as "nano"; None for a path that exists."""
    return None if path.exists() else _shipped(path)


def hidden_checkpoint(path: Path) -> Path | None:
    """Finds the checkpoint that ships under a name and that a path of this name hides; None if there is none."""
    shipped = _shipped(path)
    return None if shipped is None or not path.exists() or path.samefile(shipped) else shipped


def _shipped(path: Path) -> Path | None:
    shipped = PRETRAINED / path
    return shipped if str(path) == path.name and shipped.is_dir() else None


def shipped_names() -> list[str]:
    """Returns the names of the checkpoints that ship with slmx."""
    return [name for name in _names(PRETRAINED) if (PRETRAINED / name).is_dir()]


def near_model(path: Path) -> str:
    """Finds what is most like a missing path: something beside it, or the name of a checkpoint that ships.

    Returns:
        A question in brackets that names it; "" if nothing is like the path.
    """
    beside = [name for name in _names(path.parent) if not name.startswith(".")]
    names = [*(shipped_names() if str(path) == path.name else []), *beside]
    return did_you_mean(path.name, names, lambda name: path.parent / name)


def wrong_kind(path: Path, wanted: Kind, hidden: Path | None = None) -> SlmxError:
    """Makes the error for a path of the wrong kind. Its message says what the path is and which command accepts it.

    Args:
        path: Any path that is not of the kind `wanted`.
        wanted: `RUN`, `CHECKPOINT`, `MODEL`, `HUGGING_FACE`, `BUNDLE`, `TEXT` or `PROMPTS`.
        hidden: The bundle of the same name, which the path hides. The checkpoint that it hides is found here.

    Returns:
        The error, for the caller to raise.

    Raises:
        OSError: The folder cannot be read.
    """
    kind = find_kind(path)
    place, holder = _folder_of(path, kind, wanted)
    if wanted is Kind.CHECKPOINT:
        hidden = hidden_checkpoint(path)
    other = ""
    if hidden is not None:
        what = "checkpoint" if wanted is Kind.CHECKPOINT else "bundle"
        other = f"it hides the {what} of the same name: name that one by its path, {_argument(hidden, 'PATH')}"
    if place != path and (holder is wanted or (wanted is Kind.MODEL and holder in MODELS)):
        advice = f"name its folder, {_argument(place, 'which holds it')}"
    elif advised := ADVICE.get((holder, Kind.TEXT if wanted is Kind.PROMPTS else wanted)):
        tokenizer = FOREIGN_SUFFIXES.get(path.suffix.lower(), "")
        advice = "" if place == path else f"it is of {holder.value}: "
        advice += advised.format(path=_argument(place, "PATH"), tokenizer=tokenizer)
        advice += f"; {other}" if other else ""
    elif other:
        advice = other
    else:
        out = _argument(path, "NEW") if kind in (Kind.EMPTY, Kind.MISSING) else "NEW"
        packed = wanted is Kind.BUNDLE and kind is Kind.MISSING and path.suffix == PACKED_SUFFIX
        advice = OTHERWISE[Kind.PACKED if packed else wanted].format(out=out)
    if kind in (Kind.EMPTY, Kind.FOLDER, Kind.MISSING):
        has_names = kind is Kind.MISSING and wanted in (Kind.CHECKPOINT, Kind.MODEL)
        reason = f"{near}: {kind.value}" if has_names and (near := near_model(path)) else f" ({kind.value})"
        return SlmxError(f"{path}: no {wanted.value.removeprefix('a ')} here{reason}; {advice}")
    return SlmxError(f"{path}: {kind.value}, not {wanted.value}; {advice}")


def _folder_of(path: Path, kind: Kind, wanted: Kind) -> tuple[Path, Kind]:
    """Returns the folder of slmx or of Hugging Face that a path is a part of, and its kind; the path if it is of none.

    Args:
        path: Any path.
        kind: Its kind.
        wanted: The kind that it should have. A checkpoint is a part of its run only for a command that needs the run.
    """
    holders: tuple[Kind, ...] = HOLDERS
    depth = 2  # the graphs of a bundle are in a folder of it
    if (kind, wanted) == (Kind.CHECKPOINT, Kind.RUN):
        depth, holders = 1, (Kind.RUN,)
    elif kind is Kind.FOREIGN:
        depth, holders = 1, (Kind.HUGGING_FACE,) if path.suffix.lower() == ".bin" else ()
    elif kind is not Kind.FILE:
        depth = 0
    for number, folder in enumerate(path.absolute().parents[:depth]):
        try:
            found = find_kind(folder)
        except OSError:
            break
        if found in (holders if not number else NESTING_HOLDERS):
            return path.parents[number] if number < len(path.parents) else folder, found
    return path, kind


def _argument(path: Path, otherwise: str) -> str:
    """Returns a path as a shell takes it, or another word if control characters would act on the terminal there."""
    return shlex.quote(str(path)) if is_plain_text(str(path)) else otherwise


def require_file(path: Path) -> None:
    """Raises SlmxError for a file of prompts that is a folder or a packed bundle. Any other path is left to `open`."""
    if path.is_dir() or _is_packed(path):
        raise wrong_kind(path, Kind.PROMPTS)


def _is_packed(path: Path) -> bool:
    """Returns whether a file is one of `slmx pack`: a zip archive that begins with the manifest of a bundle."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(ZIP_HEADER + len(MANIFEST_FILE))[ZIP_HEADER:] == MANIFEST_FILE.encode()
    except OSError:
        return False


def _is_checkpoint(path: Path) -> bool:
    """Returns whether a folder is a checkpoint. Its `config.json` may be damaged."""
    files = [(path / name).is_file() for name in (CONFIG_FILE, RANKS_FILE, RECORD_FILE)]
    return all(files) or (files[0] and "sha256" in _keys(path / CONFIG_FILE))


def numbered_checkpoints(run: Path) -> list[Path]:
    """Returns the folders `step-N` of a training run, oldest first. Their content is not checked."""
    found = [path for path in run.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def _checkpoints_of_run(path: Path) -> list[Path]:
    """Returns the checkpoints of a training run: the best one, then the others from the newest to the oldest."""
    folders = (path / "best", *reversed(numbered_checkpoints(path)))
    return [folder for folder in folders if _is_checkpoint(folder)]


def _keys(path: Path) -> set[str]:
    """Returns the keys of a JSON object, or none if the file is missing, damaged or larger than MAX_JSON_BYTES.

    Raises:
        PermissionError: It may not be read.
    """
    try:
        values = read_json(path, MAX_JSON_BYTES)
    except PermissionError:
        raise
    except (OSError, ValueError):
        return set()
    return set(values) if isinstance(values, dict) else set()
