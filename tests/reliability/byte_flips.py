"""A changed byte anywhere in a bundle is found before it is used, or it is in a field that no reader uses."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from pathlib import Path

from runtimes.bundle.manifest import Manifest
from runtimes.bundle.store import Bundle
from runtimes.pack.packing import pack_bundle
from slm.console.errors import SlmxError
from slm.console.notice import Log
from slm.storage.file_names import MANIFEST_FILE
from tests.reliability.outcome import Check, Outcome
from tests.runtimes.pack.synthetic import synthetic_bundle

FLIPS, QUICK_FLIPS = 10_000, 500
CONTENTS = {"x/data": b"some data" * 20, "README.md": b"# A model\n", "tokenizer.tiktoken": b"IQ== 0\n" * 9}
# The fields of an entry in the directory of a zip archive that say nothing about its name or its content: their first
# and their last byte.
UNUSED = {
    (4, 5): "zip: the program that made the archive",
    (36, 37): "zip: a hint that a file is text",
    (38, 41): "zip: the permissions of a file",
}
SPELLING = "manifest: white space or letter case, and every value is the same"


def contents_of(path: Path) -> dict[str, bytes] | None:
    """What slmx reads from a bundle; None if it refuses it in one line, and ValueError for any other refusal."""
    try:
        bundle = Bundle.open(path)
        bundle.check_only_listed_files()
        return {MANIFEST_FILE: bundle.manifest_bytes(), **{name: bundle.read(name) for name in bundle.manifest.files}}
    except SlmxError as error:
        if len(str(error).splitlines()) != 1:
            raise ValueError(f"not one line: {error}") from error
        return None


def harmless(path: Path, spoilt: bytes, place: int, found: dict[str, bytes], whole: dict[str, bytes]) -> str | None:
    """Returns why a changed byte that was not found changes nothing; None if it does.

    Args:
        path: The file.
        spoilt: Its content.
        place: Where the changed byte is.
        found: What slmx read.
        whole: What it read before.
    """
    if found == whole and path.name != MANIFEST_FILE:
        header = spoilt.rfind(b"PK\1\2", 0, place + 1)
        return next((why for (first, last), why in UNUSED.items() if first <= place - header <= last), None)
    others = {name: content for name, content in found.items() if name != MANIFEST_FILE}
    same = others == {name: content for name, content in whole.items() if name != MANIFEST_FILE}
    manifests = (Manifest.read(content[MANIFEST_FILE], "") for content in (found, whole))
    return SPELLING if same and len(set(map(Manifest.to_bytes, manifests))) == 1 else None


def run_flips(quick: bool, log: Log) -> Outcome:
    """Changes single bytes of a bundle, as a folder and as an archive."""
    rng = random.Random(0)
    flips = QUICK_FLIPS if quick else FLIPS
    kinds: Counter[str] = Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as home:
        folder = synthetic_bundle(Path(home) / "bundle", CONTENTS)
        archive = Path(home) / "bundle.slmx"
        pack_bundle(Bundle.open(folder), archive, replace=False, log=lambda line: None)
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
        for form, places in ((folder, files), (archive, [archive])):
            whole = contents_of(form)
            assert whole is not None
            for _ in range(flips):
                path = rng.choice(places)
                content = path.read_bytes()
                place, mask = rng.randrange(len(content)), rng.randrange(1, 256)
                spoilt = content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :]
                path.write_bytes(spoilt)
                try:
                    found = contents_of(form)
                    why = "found" if found is None else harmless(path, spoilt, place, found, whole)
                except Exception as error:
                    why, found = None, {str(error): b""}
                path.write_bytes(content)
                kinds[f"{'folder' if form == folder else 'archive'}: {why}"] += 1
                if why is None:
                    name = path.relative_to(home).as_posix()
                    failures.append(f"{name}: byte {place} xor {mask} is not found ({', '.join(found or ())[:80]})")
            log(f"{form.name}: {flips:,} changed bytes")
    return Outcome(2 * flips, "changed bytes", failures, dict(sorted(kinds.items())))


CHECKS = {
    "byte-flips": Check(
        "A changed byte anywhere in a bundle, as a folder or packed, is found before it is used, or changes nothing.",
        run_flips,
    )
}
