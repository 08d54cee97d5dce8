"""A tokenizer is taken from another folder only if its files are those that the folder lists."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

import slm.tokenizers.listed
from slm.checkpoint import load_checkpoint
from slm.console.errors import SlmxError
from slm.data.prepare import PrepareSettings, prepare
from slm.folder_kind import PRETRAINED
from slm.importers.importer import ImportSettings, import_model
from slm.storage.file_names import JSON_FILE, RANKS_FILE
from slm.tokenizers.listed import load_listed
from tests import bundles

QUIET = Console(quiet=True)
BUNDLE = Path(__file__).parents[3] / "runtimes/bundles/nano"
LISTINGS = {"bundle": "manifest.json", "data set": "dataset.json", "checkpoint": "config.json"}


def exchanged(path: Path) -> None:
    first, second, *rest = path.read_bytes().splitlines(keepends=True)
    ranks = first.split(b" ")[1], second.split(b" ")[1]
    path.write_bytes(b"".join([second.split(b" ")[0] + b" " + ranks[0], first.split(b" ")[0] + b" " + ranks[1], *rest]))


def cut(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def other(path: Path) -> None:
    content = json.loads(path.read_text("utf-8"))
    content["model"]["merges"].pop()
    path.write_text(json.dumps(content), "utf-8")


@pytest.fixture(params=LISTINGS)
def folder(request: pytest.FixtureRequest, tiny_checkpoint: Path, corpus_file: Path, tmp_path: Path) -> Path:
    """A folder with a tokenizer, of each kind, that the test may damage."""
    path = tmp_path / f"a {request.param} é"
    if request.param == "data set":
        prepare(PrepareSettings((str(corpus_file),), "nano", path, tokenizer=tiny_checkpoint), QUIET)
        return path
    return bundles.copy_of(tiny_checkpoint if request.param == "checkpoint" else BUNDLE, path)


def refused(folder: Path, corpus_file: Path, hf_folder: Path) -> str:
    """The line with which both commands refuse the tokenizer of a folder."""
    out = folder.with_name("out")
    with pytest.raises(SlmxError) as of_prepare:
        prepare(PrepareSettings((str(corpus_file),), "nano", out, tokenizer=folder), QUIET)
    with pytest.raises(SlmxError) as of_import:
        import_model(ImportSettings(str(hf_folder), out, tokenizer=folder), print)
    assert str(of_prepare.value) == str(of_import.value)
    assert not out.exists()
    return str(of_import.value)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "damage"), [(RANKS_FILE, exchanged), (RANKS_FILE, cut), (JSON_FILE, other)])
def test_an_altered_tokenizer_is_refused(
    file: str, damage: Callable[[Path], None], folder: Path, corpus_file: Path, hf_folder: Path
) -> None:
    damage(folder / file)
    said = refused(folder, corpus_file, hf_folder)
    assert said == f"{folder / file}: truncated or altered (SHA-256 differs); copy the folder again, whole"


@pytest.mark.slow
def test_a_damaged_or_missing_listing_is_refused(folder: Path, corpus_file: Path, hf_folder: Path) -> None:
    listing = next(folder / name for name in LISTINGS.values() if (folder / name).is_file())
    (folder / "config.json").unlink(missing_ok=True)  # that of a bundle is not ours
    listing.write_text("{", "utf-8")
    said = refused(folder, corpus_file, hf_folder)
    assert said.startswith(f"{listing}: cannot read what it says of the tokenizer (")
    listing.unlink()
    said = refused(folder, corpus_file, hf_folder)
    assert said.startswith(f"{folder}: holds none of manifest.json, dataset.json, config.json, so slmx cannot check")


def test_a_bundle_without_its_manifest_is_refused(tmp_path: Path) -> None:
    folder = bundles.copy_of(BUNDLE, tmp_path / "é")
    (folder / "manifest.json").unlink()
    with pytest.raises(SlmxError, match=r"config\.json: cannot read what it says of the tokenizer \("):
        load_listed(folder)


@pytest.mark.parametrize("moment", ["check_file", "load_merges"])
def test_a_folder_that_another_one_replaces_while_it_is_read_is_refused(
    moment: str, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = bundles.copy_of(tiny_checkpoint, tmp_path / "é"), getattr(slm.tokenizers.listed, moment)

    def replaced(*args: Path | str) -> object:
        shutil.copytree(PRETRAINED / "nano", folder, dirs_exist_ok=True)
        return before(*args)

    monkeypatch.setattr(slm.tokenizers.listed, moment, replaced)
    with pytest.raises(SlmxError) as caught:
        load_listed(folder)
    assert str(caught.value) == f"{folder}: another folder took its place while it was read; run the command again"


def test_the_tokenizer_of_a_folder() -> None:
    shipped = load_checkpoint(PRETRAINED / "nano")
    for folder in (PRETRAINED / "nano", BUNDLE):
        listed = load_listed(folder)
        assert (listed.tokenizer, listed.merges) == (shipped.tokenizer, shipped.merges)
