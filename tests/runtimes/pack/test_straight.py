"""Every command that takes a bundle takes its archive, and unpacks nothing to the disk."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from runtimes import load
from runtimes.bundle.store import Bundle
from runtimes.pack.packing import pack_bundle
from tests import bundles
from tests.bundles import Slmx, snapshot
from tests.runtimes.web.sites import small_page

__all__ = ["small_page"]
STORY = ("--seed", "1", "--max-tokens", "8")


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for temporary files, which must stay empty."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_stories_are_the_same_and_nothing_is_unpacked(
    slmx: Slmx, bundle: Path, packed: Path, tmp_path: Path, temporary: Path
) -> None:
    before = snapshot(tmp_path)
    for variant in ("int8", "fp32"):
        expected = slmx("generate", "Once", "--bundle", bundle, "--variant", variant, *STORY)
        ran = slmx("generate", "Once", "--bundle", packed, "--variant", variant, *STORY)
        assert (ran.code, ran.stdout) == (0, expected.stdout)
    assert slmx("generate", "Once", "--bundle", packed, "-n", "3", *STORY).code == 0
    settings = {"seed": 1, "max_tokens": 8}
    with load(packed) as one, load(str(bundle)) as other:
        assert one.generate("Once", **settings).full_text == other.generate("Once", **settings).full_text  # type: ignore[call-overload]
    assert slmx("info", packed).stdout == slmx("info", bundle).stdout
    assert snapshot(tmp_path) == before
    assert list(temporary.iterdir()) == []


def test_verify_tells_the_same_and_writes_beside_the_archive(
    slmx: Slmx, bundle: Path, packed: Path, tmp_path: Path, temporary: Path
) -> None:
    before = snapshot(tmp_path)
    ran = slmx("verify", packed)
    assert ran.code == 0
    after = snapshot(tmp_path)
    result = f"{packed.name}.verification.json"
    assert set(after) - set(before) == {result}
    assert {name: after[name] for name in before} == before
    assert slmx("verify", bundle).stdout == ran.stdout
    assert (tmp_path / result).read_bytes() == (bundle / "verification.json").read_bytes()
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_doctor_measures_every_variant(slmx: Slmx, packed: Path, temporary: Path) -> None:
    ran = slmx("doctor", "--bundle", packed)
    assert ran.code == 0
    assert {"int8", "fp32"} <= {line.split()[0] for line in ran.stdout.splitlines()}
    assert list(temporary.iterdir()) == []


@pytest.mark.usefixtures("small_page")
def test_the_site_is_the_same(slmx: Slmx, bundle: Path, packed: Path, tmp_path: Path, temporary: Path) -> None:
    assert slmx("web", bundle, "--out", "one").code == 0
    assert slmx("web", packed, "--out", "two").code == 0
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_every_variant_is_checked_from_the_archive(slmx: Slmx, tiny_checkpoint: Path, tmp_path: Path) -> None:
    bundle = bundles.copy_of(bundles.tiny_bundle_of_all(tiny_checkpoint), tmp_path / "all é")
    archive = tmp_path / "all.slmx"
    pack_bundle(Bundle.open(bundle), archive, replace=False, log=lambda line: None)
    with bundles.brief_checks():
        expected = slmx("verify", bundle, "--quality", "--trust")
        shutil.rmtree(bundle)
        ran = slmx("verify", archive, "--quality", "--trust")
    assert ran.code == 0, ran.stdout
    assert ran.stdout == expected.stdout
