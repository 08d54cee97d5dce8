"""A bundle that a test may change, its archive, and a pair of keys, in a folder with odd characters."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtimes.bundle.store import Bundle
from runtimes.pack.keys import make_keys
from runtimes.pack.packing import pack_bundle
from runtimes.pack.signature import sign_bundle
from tests import bundles


@pytest.fixture
def bundle(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return bundles.copy_of(bundles.tiny_bundle(tiny_checkpoint), tmp_path / "a bundle é #1")


@pytest.fixture
def packed(bundle: Path, tmp_path: Path) -> Path:
    """The archive of the bundle."""
    archive = tmp_path / "packed é #1.slmx"
    pack_bundle(Bundle.open(bundle), archive, replace=False, log=lambda line: None)
    return archive


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The files of a private and a public key. Tests must not change them."""
    return make_keys(tmp_path_factory.mktemp("keys é") / "mine")


@pytest.fixture(scope="session")
def other_keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The files of another pair of keys."""
    return make_keys(tmp_path_factory.mktemp("other keys") / "theirs")


@pytest.fixture(params=["folder", "archive"])
def signed(request: pytest.FixtureRequest, bundle: Path, packed: Path, keys: tuple[Path, Path]) -> Path:
    """A bundle with its signature, as a folder and as an archive."""
    path = bundle if request.param == "folder" else packed
    sign_bundle(Bundle.open(path), keys[0])
    return path
