"""What an export makes, and whether a folder already holds it. This module loads neither torch nor onnx."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from export.formats.recipes import DEFAULT_RECIPE
from runtimes.bundle.location import BUNDLES
from runtimes.bundle.manifest import Manifest
from runtimes.bundle.store import Bundle
from slm.checkpoint_config import read_config
from slm.console.errors import SlmxError
from slm.console.plain_text import as_plain_text
from slm.folder_kind import CHECKPOINT_LISTING, PRETRAINED, Kind, find_checkpoint, find_kind
from slm.presets import DEFAULT_PRESET
from slm.storage.file_names import MANIFEST_FILE
from slm.storage.hashing import sha256_of, sha256_of_bytes
from slm.storage.json_reader import as_plain_name
from slm.storage.listing import check_file

# Entries of `Manifest.versions` that are no packages.
NO_PACKAGES = ("opset", "ir")


@dataclass(frozen=True)
class ExportSettings:
    """What to export and where.

    Attributes:
        preset: Name of the model; None takes the checkpoint's.
        out: Folder of the bundle; None is `default_out`.
        checkpoint: Folder of the checkpoint; None takes the one that ships with slmx.
        variants: Names of the variants to make.
        target: The kind of machine that the bundle is for.
        int8_recipe: How to quantize.
        int8_exclude: Matrices to leave in float, or ("auto",) to search for them.
        executorch: Whether to add a program for executorch, which slmx itself does not run.
        eval_text: A file of stories to compare on; None samples stories from the model.
        force: Whether a bundle in `out` may be replaced.
    """

    preset: str | None
    out: Path | None = None
    checkpoint: Path | None = None
    variants: tuple[str, ...] = ("fp32",)
    target: str = "any"
    int8_recipe: str = DEFAULT_RECIPE
    int8_exclude: tuple[str, ...] = ()
    executorch: bool = False
    eval_text: Path | None = None
    force: bool = False


def default_out(settings: ExportSettings, preset: str) -> Path:
    """Returns the folder of the bundle: `--out`, or bundles/NAME.

    NAME is that of the checkpoint's folder, or of its run, in Latin letters. Without a checkpoint, it is the preset.

    Args:
        settings: What to export.
        preset: The name of the shape in the checkpoint.
    """
    if settings.out is not None:
        return settings.out
    if settings.checkpoint is None:
        return BUNDLES / preset
    folder = settings.checkpoint.absolute()
    if find_kind(folder) is Kind.CHECKPOINT and find_kind(folder.parent) is Kind.RUN:
        folder = folder.parent
    return BUNDLES / as_plain_name(folder.name, preset)


def given_name(settings: ExportSettings, out: Path) -> str | None:
    """Returns what the person calls the model, which is the name of its bundle; None for one that ships with slmx.

    Args:
        settings: What to export.
        out: The folder of the bundle.
    """
    checkpoint = settings.checkpoint
    if checkpoint is None or find_checkpoint(checkpoint).resolve().parent == PRETRAINED.resolve():
        return None
    return as_plain_text(out.absolute().name)


def require_text_file(text: Path) -> None:
    """Raises SlmxError unless a text is one regular file. Its hash is recorded, so it is read more than once."""
    if not text.is_file():
        reason = "not a regular file" if text.exists() else "no such file"
        raise SlmxError(f"{text}: {reason}; --text takes one file of stories, whose hash is recorded")


def digest_of_inputs(settings: ExportSettings, config_sha256: str, hashes: Mapping[str, str], name: str | None) -> str:
    """Returns a SHA-256 of all that decides what an export makes, except the versions of packages.

    Args:
        settings: What to export. The text is hashed.
        config_sha256: The SHA-256 of the `config.json` of the checkpoint.
        hashes: The SHA-256 of each file in `HASHED_FILES`, by name.
        name: What the person calls the model; None for one that ships with slmx.

    Raises:
        OSError: The text cannot be read.
    """
    text = settings.eval_text
    inputs = {
        "checkpoint": {CHECKPOINT_LISTING.file: config_sha256, **hashes},
        "variants": sorted(settings.variants),
        "target": settings.target,
        "int8_recipe": settings.int8_recipe,
        "int8_exclude": settings.int8_exclude,
        "executorch": settings.executorch,
        "text": None if text is None else [text.name, sha256_of(text)],
    } | ({} if name is None else {"name": name})
    return sha256_of_bytes(json.dumps(inputs, sort_keys=True).encode("ascii"))


def bundle_up_to_date(settings: ExportSettings) -> Path | None:
    """Finds the bundle that an export would make again: from the same inputs, by the same versions, and whole.

    A folder whose export was interrupted is none, because the hash of every file is checked.

    Returns:
        Its folder; None if the export has something to do, or would fail.
    """
    if settings.force:
        return None
    with suppress(SlmxError, OSError, ValueError):
        if settings.eval_text is not None:
            require_text_file(settings.eval_text)
        checkpoint = find_checkpoint(settings.checkpoint or PRETRAINED / (settings.preset or DEFAULT_PRESET))
        config = read_config(checkpoint)
        out = default_out(settings, config.preset)
        if not (out / MANIFEST_FILE).is_file() or settings.preset not in (None, config.preset):
            return None
        bundle = Bundle.open(out)
        inputs = digest_of_inputs(settings, config.sha256, config.hashes, given_name(settings, out))
        if _same_versions(bundle.manifest) and bundle.manifest.inputs == inputs:
            for name, digest in config.hashes.items():
                check_file(checkpoint / name, digest, CHECKPOINT_LISTING.file)
            bundle.check_only_listed_files()
            return out
    return None


def _same_versions(manifest: Manifest) -> bool:
    """Returns whether the packages that made a bundle are installed in the same versions."""
    with suppress(PackageNotFoundError):
        return all(version(name) == made for name, made in manifest.versions.items() if name not in NO_PACKAGES)
    return False
