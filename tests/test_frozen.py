"""Files of every earlier format stay readable, and give what they gave."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import benchmarks.report.record
import runtimes.bundle.manifest
import slm.checkpoint_config
import slm.data.dataset
from runtimes.bundle.store import Bundle
from slm.console.errors import SlmxError
from tests.reliability.formats import FROZEN, READERS, read

GOLDEN = {"README.md", "golden.json", "nano"}  # of tests/test_golden.py


@pytest.mark.parametrize("name", READERS)
def test_a_frozen_file_is_read(name: str) -> None:
    assert read(name) is None


def test_every_frozen_file_is_read_and_every_format_is_frozen() -> None:
    assert {path.name for path in FROZEN.iterdir()} == {*READERS, *GOLDEN}
    assert runtimes.bundle.manifest.READABLE_VERSIONS == (2, 3)
    newest = {
        "bundle-{}/manifest.json": runtimes.bundle.manifest.FORMAT_VERSION,
        "checkpoint-{}/config.json": slm.checkpoint_config.FORMAT_VERSION,
        "dataset-{}/dataset.json": slm.data.dataset.FORMAT_VERSION,
        "report-{}.json": benchmarks.report.record.FORMAT_VERSION,
    }
    for name, version in newest.items():
        stored = json.loads((FROZEN / name.format(version)).read_text("utf-8"))
        assert stored["format_version"] == version, "freeze a file of the new format"


def test_a_bundle_of_format_1_names_what_makes_it_new(tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(FROZEN / "bundle-2", tmp_path / "bundle"))
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"format_version": 1}), "utf-8")
    with pytest.raises(SlmxError, match=r"bundle format 1, this slmx reads 3; export it again$"):
        Bundle.open(bundle)
