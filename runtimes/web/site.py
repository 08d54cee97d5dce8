"""Writes the folder of a site: the page, its models, packed copies of large files, and `site.json`.

`site.json` lists every file. The page checks what it loads against this list, and slmx recognizes its own folder by it.
The first line of `sw.js` holds the same list, so that a browser notices a new version.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import brotli

from runtimes.web.assets import LICENCES, PACKED_WASM, SERVICE_WORKER, read_page
from runtimes.web.models import SiteModel
from slm.console.notice import Log
from slm.folder_kind import check_outside
from slm.storage.atomic import atomic_folder
from slm.storage.file_names import JSON_FILE, MANIFEST_FILE
from slm.storage.hashing import sha256_of_bytes
from slm.storage.json_reader import Fields, read_json
from slm.storage.listing import Listing
from slm.storage.ownership import foreign_file

SITE_LISTING = Listing("site.json", "listing")
FORMAT_VERSION = 1
CARD = "README.md"
MAX_SITE_BYTES = 2**24
# Files of at least so many bytes get packed copies, if these are smaller by this factor at least.
PACK_FROM, WORTH = 10_000, 0.95
BROTLI_QUALITY = 9  # 11 would be 2% smaller and take 20 times as long
GZIP_LEVEL = 9
GZIP_FORMAT = 16 + zlib.MAX_WBITS

WEB_MANIFEST = {
    "name": "Stories, written on this device",
    "short_name": "Stories",
    "description": "A small language model that writes stories in the browser.",
    "start_url": "./",
    "scope": "./",
    "display": "standalone",
    "background_color": "#faf6ee",
    "theme_color": "#faf6ee",
    "icons": [{"src": "icon.svg", "sizes": "any", "type": "image/svg+xml"}],
}


@dataclass
class _Folder:
    """A site that is being written.

    Attributes:
        path: The folder.
        files: The entry of each file in `site.json`.
        listing: The SHA-256 of each file in the folder.
    """

    path: Path
    files: dict[str, dict[str, int | str]] = field(default_factory=dict)
    listing: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, content: bytes) -> None:
        """Writes a file that the page does not load through its list."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.listing[name] = sha256_of_bytes(content)

    def add(self, name: str, content: bytes, packed: dict[str, bytes] | None = None) -> None:
        """Writes a file of the page, and beside it the packed copies that are worth it.

        Args:
            name: Its name, relative to the site.
            content: Its bytes.
            packed: Copies that are packed already, by suffix.
        """
        self.write(name, content)
        entry: dict[str, int | str] = {"bytes": len(content), "sha256": self.listing[name]}
        for suffix, pack in (("gz", _gzip), ("br", _brotli)) if len(content) >= PACK_FROM else ():
            copy = (packed or {}).get(suffix) or pack(content)
            if len(copy) <= WORTH * len(content):
                self.write(f"{name}.{suffix}", copy)
                entry[suffix] = len(copy)
        self.files[name] = entry


@dataclass(frozen=True)
class SiteSize:
    """What a first visit takes.

    Attributes:
        transfer: Bytes over the network, if the host sends the smallest form of each file.
        unpacked: Bytes that the browser keeps.
    """

    transfer: int
    unpacked: int


def write_site(models: Sequence[SiteModel], out: Path, force: bool, log: Log) -> SiteSize:
    """Writes a site. The folder appears whole or not at all; the same models give the same bytes.

    A site of the same models and the same page that is whole is not written again, unless `force`.

    Args:
        models: The models, in the order of the menu. The page loads the first one.
        out: The folder.
        force: Whether a site in `out` is replaced.
        log: Called with a line about each step.

    Returns:
        What the page and its first model take.

    Raises:
        SlmxError: A file of a bundle or of the page is missing or damaged, or `out` cannot be written or replaced.
    """
    page = read_page()
    inputs = _inputs(page, models)
    if not force and (size := _size_if_up_to_date(out, inputs, models[0].name)) is not None:
        log(f"{out}: up to date")
        return size
    check_outside(out)
    packed_wasm, service_worker = page.pop(PACKED_WASM), page.pop(SERVICE_WORKER)
    with atomic_folder(out, SITE_LISTING, force) as work:
        log("page: packing its files")
        folder = _Folder(work)
        page[LICENCES] = _licences(models).encode("utf-8") + page[LICENCES]
        page["manifest.webmanifest"] = _json(WEB_MANIFEST)
        for name in sorted(page):
            folder.add(name, page[name], {"br": packed_wasm} if f"{name}.br" == PACKED_WASM else None)
        entries = [_add_model(folder, model, log) for model in models]
        files = dict(sorted(folder.files.items()))
        table = {
            "format_version": FORMAT_VERSION,
            "version": sha256_of_bytes(_compact({"files": files, "models": entries})),
            "slmx": version("slmx"),
            "files": files,
            "models": entries,
        }
        folder.write(SERVICE_WORKER, b"const SITE=" + _compact(table) + b";\n" + service_worker)
        listing = {"inputs": inputs, SITE_LISTING.key: dict(sorted(folder.listing.items()))}
        (work / SITE_LISTING.file).write_bytes(_json(table | listing))
    return _size(files, models[0].name)


def _inputs(page: Mapping[str, bytes], models: Sequence[SiteModel]) -> str:
    """Returns a SHA-256 of all that decides the bytes of a site."""
    values = {
        "versions": {name: version(name) for name in ("slmx", "brotli")},
        "page": {name: sha256_of_bytes(content) for name, content in sorted(page.items())},
        "models": [[model.name, model.variant, model.bundle.manifest_sha256] for model in models],
    }
    return sha256_of_bytes(_compact(values))


def _size_if_up_to_date(out: Path, inputs: str, first: str) -> SiteSize | None:
    """Returns the size of a site that was made of the same inputs and is whole and unchanged; None if there is none."""
    with suppress(OSError, ValueError, KeyError):
        site = Fields(read_json(out / SITE_LISTING.file, MAX_SITE_BYTES))
        if site.sha256("inputs") != inputs or not all((out / name).is_file() for name in SITE_LISTING.hashes(out)):
            return None
        if foreign_file(out, SITE_LISTING) is None:
            files = site.object("files")
            return _size({name: dict[str, int | str](files.scalars(name)) for name in files}, first)
    return None


def _add_model(folder: _Folder, model: SiteModel, log: Log) -> dict[str, int | str]:
    """Writes the files of a model, and returns its entry in `site.json`."""
    log(f"{model.name}: packing {model.variant}, {model.bytes / 1e6:,.1f} MB")
    bundle, home = model.bundle, f"models/{model.name}"
    manifest = bundle.manifest
    folder.add(f"{home}/{MANIFEST_FILE}", bundle.manifest_bytes())
    for name in (model.file, JSON_FILE, *([CARD] if CARD in manifest.files else [])):
        folder.add(f"{home}/{name}", bundle.read(name))
    return {
        "name": model.name,
        "variant": model.variant,
        "model": f"{home}/{model.file}",
        "tokenizer": f"{home}/{JSON_FILE}",
        "manifest": f"{home}/{MANIFEST_FILE}",
        "parameters": bundle.config.parameters,
        "source": manifest.checkpoint.shown_source or "",
        "licence": manifest.checkpoint.licence or "",
    }


def _licences(models: Sequence[SiteModel]) -> str:
    """Returns what LICENSES.txt says about the models."""
    lines = ["The models of this site", ""]
    for model in models:
        made_from = model.bundle.manifest.checkpoint
        lines += [
            f"{model.name} ({model.variant})",
            f"  made from: {made_from.shown_source or 'not recorded'}",
            f"  licence of the source: {made_from.licence or 'not stated'}",
            "",
        ]
    return "\n".join([*lines, "The software of this site", "", ""])


def _size(files: dict[str, dict[str, int | str]], first: str) -> SiteSize:
    entries = [
        entry for name, entry in files.items() if not name.startswith("models/") or name.startswith(f"models/{first}/")
    ]
    smallest = (min(int(entry[key]) for key in ("bytes", "gz", "br") if key in entry) for entry in entries)
    return SiteSize(sum(smallest), sum(int(entry["bytes"]) for entry in entries))


def _gzip(content: bytes) -> bytes:
    packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, GZIP_FORMAT)  # without a name and a time
    return packer.compress(content) + packer.flush()


def _brotli(content: bytes) -> bytes:
    return bytes(brotli.compress(content, quality=BROTLI_QUALITY))


def _compact(values: Any) -> bytes:  # noqa: ANN401  # anything that JSON holds
    return json.dumps(values, separators=(",", ":")).encode("ascii")


def _json(values: Any) -> bytes:  # noqa: ANN401  # anything that JSON holds
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode("utf-8")
