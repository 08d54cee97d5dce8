"""The bundle: the folder that an export writes and every loop reads. This module owns its layout."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm.errors import SlmxError
from slm.hashing import sha256_of
from slm.presets import GPTConfig
from slm.tokenizer import Tokenizer

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
VARIANT_FILES = {"fp32": "onnx/model.onnx", "int8": "onnx/model_int8.onnx"}


@dataclass(frozen=True)
class Bundle:
    """An opened bundle, every file of which has the bytes that its manifest lists."""

    folder: Path
    config: GPTConfig
    manifest: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Bundle:
        """Read the manifest and check every file's SHA-256.

        Raises SlmxError for a folder that is no bundle, a newer format, a missing or a changed file.
        """
        path = folder / MANIFEST_FILE
        if not path.is_file():
            raise SlmxError(f"{folder}: no bundle here (no {MANIFEST_FILE}); make one with slmx export --out {folder}")
        try:
            manifest = json.loads(path.read_text("utf-8"))
            version, shape = manifest["format_version"], manifest["shape"]
            digests = {name: entry["sha256"] for name, entry in manifest["files"].items()}
            variants = {name: entry["file"] for name, entry in manifest["variants"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SlmxError(f"{path}: not a bundle manifest ({error!r}); export it again") from error
        if version != FORMAT_VERSION:
            raise SlmxError(f"{folder}: bundle format {version}, this slmx reads {FORMAT_VERSION}; upgrade slmx")
        unlisted = [name for name in variants.values() if name not in digests]
        if unlisted or not variants:
            raise SlmxError(f"{path}: lists no hash for {', '.join(unlisted) or 'any variant'}; export it again")
        for name, digest in digests.items():
            _check(folder / name, digest)
        return cls(folder, GPTConfig.from_dict(shape, str(path)), manifest)

    @property
    def variants(self) -> list[str]:
        """Names of the model files it holds, smallest first."""
        entries = self.manifest["variants"].items()
        sizes = {name: self.manifest["files"][entry["file"]]["bytes"] for name, entry in entries}
        return sorted(sizes, key=lambda name: sizes[name])

    def model_path(self, variant: str | None = None) -> Path:
        """The model file of a variant, by default the smallest; SlmxError naming those there are."""
        chosen = variant or self.variants[0]
        if chosen not in self.variants:
            raise SlmxError(f"{self.folder}: no variant {chosen!r}; it holds {', '.join(self.variants)}")
        return self.folder / str(self.manifest["variants"][chosen]["file"])

    def tokenizer(self) -> Tokenizer:
        """Its tokenizer, from the rank file."""
        tokenizer = Tokenizer.load(self.folder)
        if tokenizer.vocab_size != self.config.vocab_size:
            raise SlmxError(
                f"{self.folder}: {tokenizer.vocab_size} tokens but {self.config.vocab_size} logits; export it again"
            )
        return tokenizer


def _check(path: Path, digest: str) -> None:
    try:
        actual = sha256_of(path)
    except FileNotFoundError:
        raise SlmxError(f"{path}: missing from the bundle; copy the folder again, whole, or export it again") from None
    except OSError as error:
        raise SlmxError(f"{path}: cannot read ({error.strerror})") from error
    if actual != digest:
        raise SlmxError(f"{path}: not the file that {MANIFEST_FILE} lists (SHA-256 differs); copy or export it again")
