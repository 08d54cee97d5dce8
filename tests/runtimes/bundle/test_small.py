"""small ships in a package of its own: every command finds it by name, and says what installs it if it is not there."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from runtimes import load
from runtimes.bundle import location
from runtimes.bundle.location import INSTALL_SMALL, STORIES_SMALL, bundle_path, is_shipped, shipped_names
from runtimes.bundle.store import Bundle
from slm.checkpoint import load_checkpoint
from slm.console.errors import SlmxError
from slm.storage.file_names import MANIFEST_FILE
from slm.storage.hashing import sha256_of
from tests.bundles import Slmx, copy_of, snapshot
from tests.test_imports import modules_loaded

SMALL = STORIES_SMALL / "small"
PROJECT = STORIES_SMALL.parent / "pyproject.toml"
MOST_BYTES = 12_000_000
STORY = ("--max-tokens", "3", "--seed", "1")
MISSING = f"small: no such path, and no bundle of this name; {INSTALL_SMALL}"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder, and no pulled bundles."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """slmx as its wheel alone installs it."""
    monkeypatch.setattr(location, "STORIES_SMALL", tmp_path / "nowhere")
    monkeypatch.setattr(location, "SMALL_PACKAGE", "slmx_stories_small_that_is_not_there")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """slmx and slmx-stories-small as their wheels install them. The bundle small."""
    monkeypatch.setattr(location, "STORIES_SMALL", tmp_path / "nowhere")
    packages = tmp_path.with_name(f"{tmp_path.name} é packages")
    shutil.copytree(STORIES_SMALL, packages / "slmx_stories_small")
    monkeypatch.syspath_prepend(packages)
    return packages / "slmx_stories_small" / "small"


def test_a_clone_has_it() -> None:
    assert list(shipped_names()) == ["micro", "nano", "small"]
    assert bundle_path("small") == SMALL
    assert is_shipped(SMALL)


def test_an_installed_package_has_it(installed: Path) -> None:
    assert list(shipped_names()) == ["micro", "nano", "small"]
    assert bundle_path("small") == installed
    assert is_shipped(installed)
    assert not is_shipped(SMALL), "it is in the clone, which this slmx is not"
    with load("small") as generator:
        assert generator.bundle.path == installed
        assert len(generator.generate("Once upon a time", max_tokens=3).ids) == 3


def test_neither_a_copy_nor_another_name_is_shipped(tmp_path: Path) -> None:
    assert not is_shipped(copy_of(SMALL, tmp_path / "é" / "small"))
    assert not is_shipped(SMALL.parent / "other")


def test_an_installed_package_without_its_bundle_is_no_package(installed: Path) -> None:
    (installed / MANIFEST_FILE).unlink()
    assert list(shipped_names()) == ["micro", "nano"]


@pytest.mark.usefixtures("missing")
def test_without_the_package_every_command_says_what_installs_it(slmx: Slmx) -> None:
    assert list(shipped_names()) == ["micro", "nano"]
    assert not is_shipped(SMALL)
    for command in (("generate", "--bundle"), ("info",), ("verify",), ("pack",), ("bench",)):
        assert slmx.refuses(*command, "small") == MISSING
    for command in (("serve",), ("web",), ("doctor", "--bundle")):
        assert slmx(*command, "small").stderr.endswith(f"{MISSING}\n")
    with pytest.raises(SlmxError, match=f"^{re.escape(MISSING)}$"):
        load("small")
    assert slmx.refuses("info", "SMALL").endswith(INSTALL_SMALL)
    assert slmx.refuses("rm", "small", "--yes") == (
        "small: no such path, and no bundle of this name; slmx list shows what is here"
    )
    assert "small" not in slmx("list").stdout


@pytest.mark.usefixtures("missing")
def test_without_the_package_the_name_is_that_of_an_exported_bundle() -> None:
    exported = copy_of(SMALL, Path("bundles") / "small")
    assert bundle_path("small") == exported
    for typed in ("smalll", "SMALL"):
        with pytest.raises(SlmxError, match=rf"^{typed}: .+; did you mean small\?$"):
            bundle_path(typed)


def test_the_package_comes_before_an_exported_bundle(installed: Path) -> None:
    copy_of(SMALL, Path("bundles") / "small")
    assert bundle_path("small") == installed


def test_every_command_takes_its_name_and_writes_nothing_there(slmx: Slmx, installed: Path) -> None:
    before = snapshot(installed)
    assert slmx("generate", "Once", "--bundle", "small", *STORY).code == 0
    assert slmx("info", "small").stdout.startswith("small: a Llama of 8,278,272 parameters")
    assert slmx("verify", "small").stdout.endswith("every hash matches\n")
    assert slmx("pack", "small").code == 0
    assert slmx("info", "small.slmx").code == 0
    (entry,) = [one for one in json.loads(slmx("list", "--json").stdout) if one["name"] == "small"]
    assert (entry["origin"], entry["path"], entry["date"]) == ("shipped", str(installed), None)
    (line,) = [line for line in slmx("presets").stdout.splitlines() if line.startswith("small ")]
    assert line.endswith("  Llama 8,278,272")
    assert slmx.refuses("rm", "small", "--yes") == "small: it is a part of slmx-stories-small, which pip removes"
    assert snapshot(installed) == before


def test_it_is_not_signed_where_it_is(slmx: Slmx, installed: Path) -> None:
    assert slmx.refuses("sign", "small", "--key", "no.key") == (
        f"{installed}: a bundle inside the package; pack it with slmx pack, and sign that file"
    )


def test_a_name_is_found_without_the_list_of_installed_packages(tmp_path: Path) -> None:
    nowhere = "from runtimes.bundle import location; location.STORIES_SMALL = location.BUNDLES"
    code = f"{nowhere}; location.shipped_names()"
    assert not modules_loaded(code, tmp_path) & {"importlib.metadata", "pkg_resources", "slmx_stories_small"}


def test_it_is_of_the_shipped_checkpoint_and_has_only_the_files_of_a_bundle() -> None:
    bundle, checkpoint = Bundle.open(SMALL), load_checkpoint(Path("small"))
    assert bundle.manifest.checkpoint.sha256 == sha256_of(checkpoint.folder / "model.safetensors")
    assert bundle.config == checkpoint.model.config
    assert bundle.tokenizer() == checkpoint.tokenizer
    assert bundle.variants == ["int8"]
    bundle.check_only_listed_files()
    files = [path for path in SMALL.rglob("*") if path.is_file()]
    assert {path.relative_to(SMALL).as_posix() for path in files} == {*bundle.manifest.files, MANIFEST_FILE}
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES


def test_the_package_states_what_it_needs_and_the_licences_of_what_it_holds() -> None:
    project = PROJECT.read_text("utf-8")
    assert re.search(r'^dependencies = \["slmx"\]', project, re.MULTILINE)
    (stated,) = re.findall(r'^license = "(.+)"$', project, re.MULTILINE)
    assert set(stated.split(" AND ")) == {"MIT", "CDLA-Sharing-1.0", "Apache-2.0"}
    card = (SMALL / "README.md").read_text("utf-8")
    assert card.startswith("---\nlicense:\n- cdla-sharing-1.0\n- apache-2.0\n")
    texts = (STORIES_SMALL / "LICENSES.txt").read_text("utf-8")
    for title in ("MIT License", "Community Data License Agreement", "Apache License"):
        assert title in texts
    (patterns,) = re.findall(r"^slmx_stories_small = (\[.+\])$", project, re.MULTILINE)
    packed = {path for pattern in json.loads(patterns) for path in STORIES_SMALL.glob(pattern) if path.is_file()}
    assert packed == {STORIES_SMALL / "LICENSES.txt", *(path for path in SMALL.rglob("*") if path.is_file())}
