"""A changed byte anywhere in a bundle is found before it is used, or it is in a field that no reader uses."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from pathlib import Path

from runtimes.bundle.manifest import MANIFEST_FILE
from runtimes.bundle.store import Bundle
from runtimes.pack.packing import pack_bundle
from slm.errors import SlmxError
from tests.reliability.outcome import Check, Log, Outcome
from tests.runtimes.pack.synthetic import synthetic_bundle

FLIPS, QUICK_FLIPS = 10_000, 500
CONTENTS = {"x/data": b"some data" * 20, "README.md": b"# A model\n", "tokenizer.tiktoken": b"IQ== 0\n" * 9}
# The fields of an entry in the directory of a zip archive that say nothing about its name or its content, by place.
UNUSED = {
    **{4: "the version and system of the program that made the archive"} | {5: "the version and system of the program that made the archive"},
}


def contents_of(path: Path) -> dict[str, bytes] | None:
    """What slmx reads from a bundle; None if it refuses it in one line.

    Raises:
        AssertionError: The refusal is not one line.
    """
    try:
        bundle = Bundle.open(path)
        bundle.check_whole()
        return {MANIFEST_FILE: bundle.manifest_bytes(), **{name: bundle.read(name) for name in bundle.manifest.files}}
    except SlmxError as error:
        assert len(str(error).splitlines()) == 1, str(error)
        return None
