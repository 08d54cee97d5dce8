"""Bundles with any content: their manifests are whole, and their models are any bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from runtimes.bundle.manifest import FileEntry
from slm.storage.file_names import MANIFEST_FILE
from slm.storage.hashing import sha256_of_bytes
from tests.runtimes.bundle.test_manifest import WHOLE

ALWAYS = tuple(WHOLE.files)


def synthetic_bundle(folder: Path, contents: Mapping[str, bytes], preset: str = "nano") -> Path:
    """A bundle of these files. Those that every manifest lists are empty unless they are given."""
    files = {**dict.fromkeys(ALWAYS, b""), **contents}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    entries = {name: FileEntry("a file", len(content), sha256_of_bytes(content)) for name, content in files.items()}
    (folder / MANIFEST_FILE).write_bytes(replace(WHOLE, preset=preset, files=entries).to_bytes())
    return folder
