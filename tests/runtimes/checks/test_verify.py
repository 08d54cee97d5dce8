"""`slmx verify` without optional packages: its checks, its result file, and the files that it does not change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from runtimes.bundle.manifest import VERIFICATION_FILE
from runtimes.bundle.variants import VARIANTS
from slm.console.install import pip_line
from slm.storage.file_names import MANIFEST_FILE
from slm.storage.hashing import sha256_of
from tests import bundles
from tests.bundles import Slmx

pytestmark = pytest.mark.slow

# `slmx` in a process that cannot import the optional packages.
PLAIN = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "onnxscript", "safetensors", "tokenizers", "transformers"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Nothing())
sys.argv = ["slmx", *sys.argv[1:]]
from slm.cli import main
main()
"""


@pytest.fixture
def bundle(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return bundles.copy_of(bundles.tiny_bundle(tiny_checkpoint), tmp_path / "b é 100% #1")


def plain(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PLAIN, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False)


def test_the_plain_install_checks_hashes_and_structure(bundle: Path) -> None:
    before = bundles.snapshot(bundle)
    ran = plain("verify", bundle)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "int8: opens, with the shape that the manifest lists",
        "fp32: opens, with the shape that the manifest lists",
        "9 files and the manifest, every hash matches",
    ]
    found = json.loads((bundle / VERIFICATION_FILE).read_text("utf-8"))
    assert found["manifest_sha256"] == sha256_of(bundle / MANIFEST_FILE)
    assert (found["files"], found["opened"], found["problems"]) == (9, ["int8", "fp32"], [])
    after = bundles.snapshot(bundle)
    written = after.pop(VERIFICATION_FILE)
    assert after == before
    assert plain("verify", bundle).returncode == 0
    assert sha256_of(bundle / VERIFICATION_FILE) == written
    assert plain("verify", bundle, "--quality").stderr.splitlines()[-1].endswith(pip_line("export"))


def test_torch_files_are_named_and_not_read(slmx: Slmx, tiny_checkpoint: Path, tmp_path: Path) -> None:
    bundle = bundles.copy_of(bundles.tiny_bundle_of_all(tiny_checkpoint), tmp_path / "all")
    ran = slmx("verify", bundle)
    assert ran.code == 0
    for name in ("torchscript", "pt2"):
        assert f"{name}: not read (PyTorch can run code from it: needs --quality --trust)" in ran.stdout.splitlines()
    assert json.loads((bundle / VERIFICATION_FILE).read_text("utf-8"))["not_opened"] == ["torchscript", "pt2"]


def test_every_problem_is_named_and_written(slmx: Slmx, bundle: Path) -> None:
    (bundle / "README.md").write_text("another", "utf-8")
    (bundle / "config.json").unlink()
    (bundle / "notes.txt").write_text("mine", "utf-8")
    ran = slmx("verify", bundle)
    assert ran.code == 1
    lines = ran.stdout.splitlines()
    assert [line.startswith("FAILED: ") for line in lines] == [True] * 3
    assert "README.md: not the file that manifest.json lists" in lines[0]
    assert "config.json: missing from the bundle" in lines[1]
    assert "'notes.txt' is not listed in manifest.json" in lines[2]
    found = json.loads((bundle / VERIFICATION_FILE).read_text("utf-8"))
    assert [f"FAILED: {line}" for line in found["problems"]] == lines
    assert found["opened"] == []


def test_a_graph_that_does_not_open_or_is_another_one_fails(slmx: Slmx, bundle: Path) -> None:
    (bundle / VARIANTS["int8"].file).write_bytes(b"no model")
    bundles.list_again(bundle, VARIANTS["int8"].file)
    ran = slmx("verify", bundle)
    assert ran.code == 1
    assert "not a model that slmx opens" in ran.stdout
    assert "fp32: opens" in ran.stdout
    shape = json.loads((bundle / MANIFEST_FILE).read_text("utf-8"))["shape"]
    bundles.edit_manifest(bundle, shape=shape | {"block_size": 32})
    ran = slmx("verify", bundle)
    assert ran.code == 1
    assert "as the manifest says" in ran.stdout
    assert ": opens" not in ran.stdout


def test_what_cannot_be_written_is_a_note(slmx: Slmx, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    before = bundles.snapshot(bundle)
    monkeypatch.setattr("tempfile.mkstemp", refuse)
    ran = slmx("verify", bundle)
    assert ran.code == 0
    assert f"{bundle / VERIFICATION_FILE}: not written (Permission denied)" in ran.stderr
    assert bundles.snapshot(bundle) == before


def test_a_full_disk_leaves_the_old_result(slmx: Slmx, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert slmx("verify", bundle).code == 0
    before = bundles.snapshot(bundle)

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    ran = slmx("verify", bundle)
    assert ran.code == 0
    assert "not written (No space left on device)" in ran.stderr
    assert bundles.snapshot(bundle) == before


def test_an_archive_is_checked_and_left_alone(slmx: Slmx, bundle: Path, tmp_path: Path) -> None:
    archive = tmp_path / "b é.slmx"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(bundle.rglob("*")):
            packed.write(path, path.relative_to(bundle).as_posix())
    before = sha256_of(archive)
    ran = slmx("verify", archive)
    assert ran.code == 0
    assert ran.stdout.splitlines()[-1] == "9 files and the manifest, every hash matches"
    assert sha256_of(archive) == before
    written = tmp_path / f"b é.slmx.{VERIFICATION_FILE}"
    assert json.loads(written.read_text("utf-8"))["manifest_sha256"] == sha256_of(bundle / MANIFEST_FILE)


@pytest.mark.parametrize("option", [["--trust"], ["--checkpoint", "c"], ["--text", "t"]])
def test_options_of_the_check_of_quality_need_it(slmx: Slmx, bundle: Path, option: list[str]) -> None:
    line = slmx.refuses("verify", bundle, *option, code=2)
    assert line == "--trust, --checkpoint and --text need --quality"


def test_an_export_may_replace_a_bundle_that_was_verified(slmx: Slmx, bundle: Path, tiny_checkpoint: Path) -> None:
    assert slmx("verify", bundle).code == 0
    with bundles.brief_checks():
        assert slmx("export", "--checkpoint", tiny_checkpoint, "--out", bundle, "--force").code == 0
    assert not (bundle / VERIFICATION_FILE).exists()
