"""Signed bundles, and the line that refuses one."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtimes.bundle.store import Bundle
from runtimes.pack.signature import require_signature
from slm.console.errors import SlmxError
from tests import bundles

Keys = tuple[Path, Path]
AGAIN = "get the bundle and its signature again"


def signature_of(path: Path) -> Path:
    return Bundle.open(path).signature_path


def refusal(path: Path, key: Path) -> str:
    with pytest.raises(SlmxError) as caught:
        require_signature(Bundle.open(path), key)
    (line,) = str(caught.value).splitlines()
    assert line.isprintable()
    return line


def change_default(folder: Path) -> None:
    bundles.edit_manifest(folder, default="fp32")
