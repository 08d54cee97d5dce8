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

FORMAT_VERSION = 2
MANIFEST_FILE = "manifest.json"
VARIANT_FILES = {
    "fp32": "onnx/model.onnx",
    "int8": "onnx/model_int8.onnx",
    "int4": "onnx/model_q4.onnx",
    "fp16": "onnx/model_fp16.onnx",
    "portable": "onnx/model_portable.onnx",
    "mobile": "mobile/model.ort",
    "torchscript": "torchscript/model.ts",
    "pt2": "torchscript/model.pt2",
}
TORCH_VARIANTS = ("torchscript", "pt2")


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
        manifest = _read_manifest(path)
        config = GPTConfig.from_dict(manifest["shape"], str(path))
        files, variants = manifest["files"], manifest["variants"]
        unlisted = [entry["file"] for entry in variants.values() if entry["file"] not in files]
        if unlisted or not variants:
            raise SlmxError(f"{path}: lists no hash for {', '.join(unlisted) or 'any variant'}; export it again")
        if manifest["default"] not in variants:
            raise SlmxError(f"{path}: its default variant {manifest['default']!r} is not listed; export it again")
        for name, entry in files.items():
            _check(folder / name, entry["sha256"])
        return cls(folder, config, manifest)

    @property
    def variants(self) -> list[str]:
        """Names of the variants that onnxruntime runs, the default first, then as the manifest lists them."""
        names = [name for name in self.manifest["variants"] if name not in TORCH_VARIANTS]
        return sorted(names, key=lambda name: name != self.manifest["default"])

    def choose(self, variant: str | None = None) -> str:
        """A variant that onnxruntime runs, by default the one its target asks for; SlmxError naming those there are."""
        if not self.variants:
            raise SlmxError(f"{self.folder}: no variant for onnxruntime in this bundle; export it again with --int8")
        chosen = variant or self.variants[0]
        if chosen in TORCH_VARIANTS and chosen in self.manifest["variants"]:
            raise SlmxError(f"{self.folder}: {chosen} is for PyTorch; onnxruntime runs {', '.join(self.variants)}")
        if chosen not in self.variants:
            raise SlmxError(f"{self.folder}: no variant {chosen!r}; it holds {', '.join(self.variants)}")
        return chosen

    def model_path(self, variant: str | None = None) -> Path:
        """The model file of a variant, chosen as `choose` does."""
        return self.folder / str(self.manifest["variants"][self.choose(variant)]["file"])

    def model_bytes(self, variant: str | None = None) -> bytes:
        """The content of a variant's model file, chosen as `choose` does."""
        return self.model_path(variant).read_bytes()

    def tokenizer(self) -> Tokenizer:
        """Its tokenizer, from the rank file."""
        tokenizer = Tokenizer.load(self.folder)
        if tokenizer.vocab_size != self.config.vocab_size:
            raise SlmxError(
                f"{self.folder}: {tokenizer.vocab_size} tokens but {self.config.vocab_size} logits; export it again"
            )
        return tokenizer


def _read_manifest(path: Path) -> dict[str, Any]:
    """Parse a manifest; its version comes first, for a newer one may be laid out otherwise."""
    try:
        manifest: dict[str, Any] = json.loads(path.read_text("utf-8"))
        version = manifest["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SlmxError(f"{path}: not a bundle manifest ({error!r}); export it again") from error
    if version != FORMAT_VERSION:
        older = isinstance(version, int) and version < FORMAT_VERSION
        what_next = "export it again" if older else "upgrade slmx"
        raise SlmxError(f"{path}: bundle format {version}, this slmx reads {FORMAT_VERSION}; {what_next}")
    whole = (
        isinstance(manifest.get("shape"), dict)
        and isinstance(manifest.get("default"), str)
        and _is_table(manifest.get("files"), sha256=str, bytes=int)
        and _is_table(manifest.get("variants"), file=str)
    )
    if not whole:
        raise SlmxError(f"{path}: not a whole bundle manifest (shape, default, files or variants); export it again")
    return manifest


def _is_table(value: object, **fields: type) -> bool:
    """Whether it is a JSON object of objects that each have these fields."""
    return isinstance(value, dict) and all(
        isinstance(entry, dict) and all(isinstance(entry.get(name), kind) for name, kind in fields.items())
        for entry in value.values()
    )


def _check(path: Path, digest: str) -> None:
    try:
        actual = sha256_of(path)
    except FileNotFoundError:
        raise SlmxError(f"{path}: missing from the bundle; copy the folder again, whole, or export it again") from None
    except OSError as error:
        raise SlmxError(f"{path}: cannot read ({error.strerror})") from error
    if actual != digest:
        raise SlmxError(f"{path}: not the file that {MANIFEST_FILE} lists (SHA-256 differs); copy or export it again")
