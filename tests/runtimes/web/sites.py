"""Sites for the tests: a real one, and a page whose large file is small, so that a site takes milliseconds."""

from __future__ import annotations

import functools
import gzip
import json
from pathlib import Path
from typing import Any

import brotli
import pytest

from runtimes.bundle.location import SHIPPED_BUNDLES
from runtimes.web.assets import PACKED_WASM, WASM, read_page
from runtimes.web.models import choose_models
from runtimes.web.site import write_site
from slm.storage.hashing import sha256_of
from tests.shared import made_once

NANO, MICRO = SHIPPED_BUNDLES / "nano", SHIPPED_BUNDLES / "micro"
UNPACK = {".gz": gzip.decompress, ".br": brotli.decompress}


@functools.cache
def real_site() -> Path:
    """The site of nano and micro. Tests must not change it."""
    models = choose_models([NANO, MICRO])
    return made_once("site", lambda out: write_site(models, out, force=False, log=lambda line: None))


@pytest.fixture
def small_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sites of this test hold a small file in place of onnxruntime."""
    wasm = bytes(range(256)) * 200
    page = read_page() | {WASM: wasm, PACKED_WASM: brotli.compress(wasm)}
    monkeypatch.setattr("runtimes.web.site.read_page", lambda: dict(page))
    monkeypatch.setattr("runtimes.web.site.BROTLI_QUALITY", 1)


def read_table(site: Path) -> dict[str, Any]:
    """The content of site.json."""
    table = json.loads((site / "site.json").read_text("utf-8"))
    assert isinstance(table, dict)
    return table


def check_site(site: Path) -> dict[str, Any]:
    """Checks that site.json tells the truth about every file of a site; returns its content."""
    table = read_table(site)
    names = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert names == {"site.json", *table["listing"]}
    assert table["listing"] == {name: sha256_of(site / name) for name in table["listing"]}
    packed = set()
    for name, entry in table["files"].items():
        content = (site / name).read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (len(content), sha256_of(site / name))
        for suffix, unpack in UNPACK.items():
            copy = site / f"{name}{suffix}"
            assert copy.is_file() == (suffix[1:] in entry)
            if copy.is_file():
                assert entry[suffix[1:]] == copy.stat().st_size < entry["bytes"]
                assert unpack(copy.read_bytes()) == content
                packed.add(copy.name)
    assert {"site.json", "sw.js", *packed} == {Path(name).name for name in names - set(table["files"])}
    for model in table["models"]:
        assert {model[part] for part in ("model", "tokenizer", "manifest")} <= set(table["files"])
    return table
