"""Finds what the source of `slmx import` is, and writes its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NoReturn

from slm.console.errors import SlmxError, UsageError
from slm.console.notice import Log
from slm.folder_kind import (
    CHECKPOINT_LISTING,
    LLAMA2C_TOKENIZER,
    Kind,
    check_outside,
    find_checkpoint,
    find_kind,
    find_shipped,
    like_a_path,
    near_model,
    shipped_names,
    wrong_kind,
)
from slm.hub.client import open_snapshot
from slm.hub.errors import HubError, HubUnreachable
from slm.hub.name import HUB, HubName
from slm.importers.foreign import ForeignModel, write_checkpoint
from slm.importers.imported_tokenizer import ImportedTokenizer
from slm.presets import LARGEST_VOCABULARY, GPTConfig
from slm.storage.atomic import check_target
from slm.storage.file_names import CONFIG_FILE, JSON_FILE, MANIFEST_FILE, RANKS_FILE
from slm.storage.json_reader import read_json
from slm.storage.read_errors import unreadable
from slm.tokenizers.listed import load_listed

WEIGHTS = "*.safetensors"
# What a Hugging Face folder needs of a repository, besides its config.json.
HUB_FILES = (
    *(WEIGHTS, "*.safetensors.index.json", "README.md"),
    *("*token*.json", "vocab.json", "merges.txt"),
)
MAX_JSON_BYTES = 2**20
GGUF, ZIP, PICKLE = b"GGUF", b"PK\x03\x04", b"\x80"
NAMED_TOKENIZERS = (RANKS_FILE, "merges.txt")  # files of a folder with a tokenizer that people name instead of it
FILES = (".gguf", ".pt", ".pth", ".bin", ".safetensors")  # endings of a path, not of a name on the hub


@dataclass(frozen=True)
class ImportSettings:
    """What to import and where to.

    Attributes:
        source: A Hugging Face folder, a file of torch.save, a GGUF file, a .bin file of llama2.c, or the name of a
            repository on the Hugging Face hub, as OWNER/NAME or OWNER/NAME@REVISION.
        out: The folder of the checkpoint.
        tokenizer: The tokenizer of a file that holds none, or the one to move another model to: a Hugging Face folder,
            a slmx checkpoint, run, data set or bundle, the name of a checkpoint that ships, or a tokenizer.bin of
            llama2.c. None keeps the model's own, or takes a tokenizer.bin beside a .bin file.
        shape: A JSON file with fields of `GPTConfig` that a file of torch.save does not tell.
        n_head: The number of attention heads, which a plain state dictionary does not tell.
        block_size: A shorter context than the model's.
        licence: The licence of the model, if the source does not state it.
        force: Whether to replace a checkpoint that slmx wrote to `out`.
    """

    source: str
    out: Path
    tokenizer: Path | None = None
    shape: Path | None = None
    n_head: int | None = None
    block_size: int | None = None
    licence: str | None = None
    force: bool = False


@dataclass(frozen=True)
class Imported:
    """What was written.

    Attributes:
        config: The shape of the model.
        moved: Whether the model was moved to another vocabulary, so that it must be fine-tuned.
    """

    config: GPTConfig
    moved: bool


def import_model(settings: ImportSettings, log: Log) -> Imported:
    """Reads a model of another program and writes a checkpoint.

    Args:
        settings: What to import and where to.
        log: Called with one line about each part of the model that is left out or changes its meaning.

    Returns:
        What was written.

    Raises:
        SlmxError: The source or the tokenizer is missing, damaged, or of a kind that slmx does not import, or `out`
            cannot be written. Nothing is written then.
        UsageError: An option does not fit the kind of source.
    """
    check_outside(settings.out)
    path = Path(settings.source)
    if find_shipped(path) is not None:
        raise SlmxError(
            f"{path}: a checkpoint that ships with slmx, which needs no import: "
            f"slmx export --checkpoint {path} takes it"
        )
    check_target(settings.out, CHECKPOINT_LISTING, settings.force)
    if path.exists():
        foreign = _read(path, settings, _given_tokenizer(settings), log)
    elif not settings.source.startswith(HUB) and (near := like_a_path(path)):
        raise SlmxError(f"{path}: no such file or folder{near}")
    elif path.suffix.lower() not in FILES and (name := HubName.find(settings.source.removeprefix(HUB))):
        given = _given_tokenizer(settings)
        folder, repository = _download(name)
        foreign = _read(folder, settings, given, log)
        foreign = replace(foreign, record={**foreign.record, "repository": repository})
    else:
        raise SlmxError(
            f"{path}: no such file or folder; name a Hugging Face folder, a .pt, .gguf or .bin file, "
            "or OWNER/NAME of the Hugging Face hub"
        )
    if settings.licence is not None:
        foreign = replace(foreign, record={**foreign.record, "licence": settings.licence})
    config = write_checkpoint(foreign, settings.out, settings.force, log)
    return Imported(config, moved=foreign.moved_to is not None)


def _read(path: Path, settings: ImportSettings, given: ImportedTokenizer | None, log: Log) -> ForeignModel:
    """Reads a path that exists with the reader of its kind, which its first bytes tell.

    Args:
        path: The path.
        settings: The other options.
        given: The tokenizer that `settings` names.
        log: Called with one line about what the path does not tell.
    """
    if path.is_dir():
        from slm.importers.hugging_face import read_hugging_face

        _refuse_shape(settings, "a folder")
        return _moved(lambda: read_hugging_face(path, settings.block_size, settings.tokenizer), given, settings)
    if not path.is_file():
        raise SlmxError(f"{path}: not a regular file; write the model to a file, and name that")
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise unreadable(path, error) from None
    if head.startswith(GGUF):
        from slm.importers.gguf import read_gguf

        _refuse_shape(settings, "a GGUF file")
        return _moved(lambda: read_gguf(path, settings.block_size), given, settings)
    if find_kind(path) is Kind.PACKED:
        raise wrong_kind(path, Kind.HUGGING_FACE)
    if head.startswith((ZIP, PICKLE)):
        from slm.importers.pytorch_file import read_pytorch

        return read_pytorch(path, lambda: given or _no_tokenizer(path), _given_shape(settings), log)
    if path.suffix == ".bin":
        from slm.importers.llama2c import read_llama2c

        _refuse_shape(settings, "a file of llama2.c")
        beside = path.with_name(LLAMA2C_TOKENIZER)

        def its_tokenizer() -> ImportedTokenizer:
            return given or (_tokenizer(beside) if beside.is_file() else _no_tokenizer(path))

        return read_llama2c(path, its_tokenizer, settings.block_size)
    if find_kind(path.absolute().parent) is Kind.HUGGING_FACE:
        raise SlmxError(f"{path}: one file of a Hugging Face folder; name the folder, {path.absolute().parent}")
    raise SlmxError(f"{path}: not a file of torch.save, GGUF or llama2.c; slmx imports these and Hugging Face folders")


def _moved(read: Callable[[], ForeignModel], given: ImportedTokenizer | None, settings: ImportSettings) -> ForeignModel:
    """Reads a model that holds a tokenizer, to be moved to the given one, if there is one."""
    if given is not None and given.tokenizer.vocab_size > LARGEST_VOCABULARY:
        raise SlmxError(
            f"--tokenizer {settings.tokenizer}: has {given.tokenizer.vocab_size:,} tokens; a moved model must be "
            f"fine-tuned, and slmx trains models of at most {LARGEST_VOCABULARY:,}; name a smaller one, such as nano"
        )
    foreign = read()
    if given is not None and given.tokenizer == foreign.tokenizer.tokenizer:
        raise UsageError(f"--tokenizer {settings.tokenizer}: {foreign.where} has this tokenizer already; leave it out")
    return replace(foreign, moved_to=given)


def _refuse_shape(settings: ImportSettings, kind: str) -> None:
    for option in ("shape", "n_head"):
        if getattr(settings, option) is not None:
            raise UsageError(
                f"--{option.replace('_', '-')} is for files that do not hold it, and {kind} does; leave it out"
            )


def _given_shape(settings: ImportSettings) -> Mapping[str, Any]:
    given: dict[str, Any] = {}
    if settings.shape is not None:
        try:
            values = read_json(settings.shape, MAX_JSON_BYTES)
        except OSError as error:
            raise unreadable(settings.shape, error) from None
        except ValueError as error:
            raise SlmxError(f"{settings.shape}: no JSON ({error}); correct it") from None
        known = GPTConfig.__dataclass_fields__
        if not isinstance(values, dict):
            raise SlmxError(f'{settings.shape}: no JSON object; write one such as {{"n_head": 4}}')
        if strange := next((name for name in values if name not in known), None):
            raise SlmxError(f"{settings.shape}: {strange[:40]!a} is no part of a shape; there are {', '.join(known)}")
        given |= values
    options = {"n_head": settings.n_head, "block_size": settings.block_size}
    return given | {name: value for name, value in options.items() if value is not None}


def _no_tokenizer(source: Path) -> NoReturn:
    raise UsageError(
        f"{source}: holds no tokenizer; add --tokenizer PATH: a Hugging Face folder with the tokenizer of this "
        "model, a slmx checkpoint, or a tokenizer.bin of llama2.c"
    )


def _given_tokenizer(settings: ImportSettings) -> ImportedTokenizer | None:
    return None if settings.tokenizer is None else _tokenizer(settings.tokenizer)


def _tokenizer(path: Path) -> ImportedTokenizer:
    """Reads a tokenizer of any kind that slmx knows."""
    path = find_shipped(path) or path
    if path.suffix == ".json" or (path.name in NAMED_TOKENIZERS and not path.is_dir()):
        raise UsageError(f"--tokenizer {path}: name the folder of this file, {path.absolute().parent}")
    if find_kind(path) is Kind.PACKED:
        raise SlmxError(f"{path}: a packed bundle; slmx unpack makes a folder of it, which --tokenizer takes")
    if path.is_dir() and (path / LLAMA2C_TOKENIZER).is_file() and not (path / JSON_FILE).is_file():
        path = path / LLAMA2C_TOKENIZER
    if path.is_file():
        from slm.importers.llama2c_tokenizer import llama2c_tokenizer

        if path.suffix != ".bin":
            raise SlmxError(f"{path}: a file; --tokenizer names a folder that holds a tokenizer, or a tokenizer.bin")
        return llama2c_tokenizer(path)
    if not path.is_dir():
        problem = "not a regular file" if path.exists() else f"no such file or folder{near_model(path)}"
        raise SlmxError(
            f"{path}: {problem}; --tokenizer names one that holds a tokenizer, or a shipped model: "
            f"{', '.join(shipped_names())}"
        )
    # A bundle or a checkpoint with a damaged listing is of no kind, but its rank file shows that it is ours.
    if find_kind(path) in (Kind.CHECKPOINT, Kind.RUN, Kind.DATA_SET, Kind.BUNDLE) or (path / RANKS_FILE).is_file():
        listed = load_listed(find_checkpoint(path) if find_kind(path) is Kind.RUN else path)
        return ImportedTokenizer(listed.tokenizer, listed.merges, list(range(listed.tokenizer.vocab_size)), [])
    from slm.importers.hugging_face_tokenizer import import_tokenizer, is_there
    from slm.importers.hugging_face_weights import read_json_object

    config = path / CONFIG_FILE
    return import_tokenizer(path, read_json_object(config, "a model configuration") if is_there(config) else None)


def _download(name: HubName) -> tuple[Path, str]:
    """Downloads what a repository of the Hugging Face hub holds of a model; returns the folder and the exact name."""
    from slm.importers.hugging_face_weights import PICKLED_FILE

    try:
        snapshot = open_snapshot(name, CONFIG_FILE, MAX_JSON_BYTES, "it is no model for slmx import")
        files = [file for file in snapshot.sizes if any(fnmatch(file, form) for form in HUB_FILES) and "/" not in file]
        if not any(fnmatch(file, WEIGHTS) for file in files):
            if MANIFEST_FILE in snapshot.sizes:
                raise HubError(name, f"a bundle of slmx, which needs no import: slmx pull {name} brings it")
            files += [file for file in snapshot.sizes if file == PICKLED_FILE]
        for file in files:
            snapshot.fetch(file)
    except HubUnreachable as error:
        raise SlmxError(f"{name}: no such path here, and {error.reason}") from None
    return snapshot.folder, f"{name.repository}@{snapshot.commit}"
