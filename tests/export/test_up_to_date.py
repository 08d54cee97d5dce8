"""An export that has nothing to do says so; anything else that stands there is replaced only with --force."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import export.settings
from export.settings import ExportSettings, bundle_up_to_date, default_out, digest_of_inputs, given_name
from runtimes.bundle.store import Bundle
from runtimes.web.models import choose_models
from slm.storage.file_names import MANIFEST_FILE
from tests import bundles
from tests.bundles import Slmx, edit_manifest, snapshot

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick", "ready_graph")]


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return bundles.copy_of(tiny_checkpoint, tmp_path / "é 1" / "mine")


@pytest.fixture
def made(slmx: Slmx, checkpoint: Path) -> tuple[str, ...]:
    """An export into `bundles/mine`."""
    command = ("export", "--checkpoint", str(checkpoint), "--int8")
    assert slmx(*command).code == 0
    return command


def test_the_same_export_again_is_up_to_date(slmx: Slmx, made: tuple[str, ...]) -> None:
    before = snapshot(Path("bundles"))
    where = Path("bundles", "mine")
    Path("bundles", ".slmx-work-mine").mkdir()  # of a kill when it was finished
    ran = slmx(*made)
    assert (ran.code, ran.stdout, ran.stderr) == (0, f"{where}\n", f"{where}: up to date\n")
    assert slmx("verify", where).code == 0
    assert slmx(*made).stderr.endswith("up to date\n"), "the result of verify is no part of the bundle"
    (where / "verification.json").unlink()
    assert snapshot(Path("bundles")) == before
    assert list(Path("bundles").iterdir()) == [where]


def test_nothing_is_loaded_to_see_it(made: tuple[str, ...]) -> None:
    code = (
        "import sys; from slm.cli import main; import atexit\n"
        "atexit.register(lambda: print(sorted({'torch', 'onnx', 'onnxruntime'} & set(sys.modules))))\n"
        "main()"
    )
    ran = subprocess.run([sys.executable, "-c", code, *made], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"


def _cut(name: str) -> Callable[[Path], object]:
    return lambda bundle: (bundle / name).write_bytes((bundle / name).read_bytes()[:-9])


@pytest.mark.parametrize(
    "change",
    [_cut("onnx/model.onnx"), _cut("README.md"), _cut(MANIFEST_FILE), lambda bundle: (bundle / "onnx/x").touch()],
    ids=["cut model", "cut card", "cut manifest", "a foreign file"],
)
def test_a_bundle_that_is_not_whole_is_not_up_to_date(
    slmx: Slmx, made: tuple[str, ...], change: Callable[[Path], object]
) -> None:
    change(Path("bundles", "mine"))
    assert "not empty" in slmx.refuses(*made)


def test_a_model_that_is_missing_is_not_up_to_date(slmx: Slmx, made: tuple[str, ...]) -> None:
    Path("bundles", "mine", "onnx", "model_int8.onnx").unlink()
    assert "not empty" in slmx.refuses(*made)
    assert slmx(*made, "--force").code == 0
    assert slmx(*made).stderr.endswith("up to date\n")


@pytest.mark.parametrize("more", [["--target", "pi4"], ["--no-fp32"], ["--int8-recipe", "u8-channel"], ["--q8"]])
def test_other_settings_ask_for_force(slmx: Slmx, made: tuple[str, ...], more: list[str]) -> None:
    assert "--force to replace it" in slmx.refuses(*made, *more)


def test_other_inputs_and_other_versions_ask_for_force(
    slmx: Slmx, made: tuple[str, ...], checkpoint: Path, corpus_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "--force to replace it" in slmx.refuses(*made, "--text", corpus_file)
    with monkeypatch.context() as patched:
        patched.setattr(export.settings, "version", lambda name: "0.0.1")
        assert "--force to replace it" in slmx.refuses(*made)
    assert slmx(*made, "--preset", "nano").code == 0
    record = checkpoint / "training.json"
    values = json.loads(record.read_text("utf-8"))
    record.write_text(json.dumps({**values, "licence": "another"}))
    assert "training.json" in slmx.refuses(*made), "the checkpoint itself is damaged now"


def test_only_files_of_the_checkpoint_are_read(made: tuple[str, ...], checkpoint: Path) -> None:
    """A listing may name anything. Some of it would never end."""
    settings = ExportSettings(None, checkpoint=checkpoint, variants=("fp32", "int8"))
    assert bundle_up_to_date(settings) == Path("bundles", "mine")
    config = checkpoint / "config.json"
    stated = config.read_bytes()
    values = json.loads(stated)
    os.mkfifo(checkpoint / "pipe")
    odd = dict.fromkeys(("/dev/zero", "../../../../../../dev/zero", "pipe", "gone", "."), "0" * 64)
    config.write_text(json.dumps(values | {"sha256": values["sha256"] | odd}), "utf-8")
    assert bundle_up_to_date(settings) is None, "the listing itself is another one"
    config.write_bytes(stated)
    assert bundle_up_to_date(settings) == Path("bundles", "mine")
    (checkpoint / "pipe").replace(checkpoint / "model.safetensors")
    assert bundle_up_to_date(settings) is None


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"preset": "nano", "preset": "micro"}', b"\xff"])
def test_a_listing_that_is_no_json_is_not_up_to_date(content: bytes, checkpoint: Path) -> None:
    (checkpoint / "config.json").write_bytes(content)
    assert bundle_up_to_date(ExportSettings(None, checkpoint=checkpoint)) is None


def test_a_manifest_without_the_digest_is_not_up_to_date(slmx: Slmx, made: tuple[str, ...]) -> None:
    edit_manifest(Path("bundles", "mine"), inputs=None)
    assert "--force to replace it" in slmx.refuses(*made)


def test_the_bundle_of_a_checkpoint_gets_the_name_of_its_folder_or_of_its_run(checkpoint: Path, tmp_path: Path) -> None:
    run = tmp_path / "fairytales"
    for part in ("best", "step-0000200"):
        bundles.copy_of(checkpoint, run / part)
    for given, name in {
        run: "fairytales",
        run / "best": "fairytales",
        run / "step-0000200": "fairytales",
        bundles.copy_of(checkpoint, tmp_path / "others" / "sol"): "sol",
        bundles.copy_of(checkpoint, tmp_path / "others" / "été 2"): "ete-2",
        bundles.copy_of(checkpoint, tmp_path / "others" / "故事"): "micro",
        Path("nano"): "nano",
        Path("/"): "micro",
    }.items():
        assert default_out(ExportSettings(None, checkpoint=given), "micro") == Path("bundles", name)
    assert default_out(ExportSettings("micro"), "micro") == Path("bundles", "micro")
    assert default_out(ExportSettings(None, Path("x"), Path("y")), "micro") == Path("x")


def test_an_own_model_has_the_name_of_its_bundle_and_a_shipped_one_that_of_its_preset(checkpoint: Path) -> None:
    own, shipped = ExportSettings(None, checkpoint=checkpoint), ExportSettings("nano")
    assert given_name(own, Path("bundles", "märchen")) == "märchen"
    assert given_name(own, Path("bundles", "\x1b[31m")) == "?[31m"
    assert given_name(shipped, Path("bundles", "everything")) is None
    assert given_name(ExportSettings(None, checkpoint=Path("nano")), Path("bundles", "everything")) is None
    assert digest_of_inputs(own, "0" * 64, {}, "a") != digest_of_inputs(own, "0" * 64, {}, "b")


def test_the_name_of_an_own_model_is_shown_everywhere(slmx: Slmx, made: tuple[str, ...]) -> None:
    assert slmx("info", "bundles/mine").stdout.startswith("mine: a ")
    facts = json.loads(slmx("info", "bundles/mine", "--json").stdout)
    manifest = Bundle.open(Path("bundles", "mine")).manifest
    assert (facts["name"], facts["preset"]) == ("mine", manifest.preset)
    assert list(facts["variants"]) == list(manifest.variants)
    assert facts["bytes"] == sum(entry.bytes for entry in manifest.files.values())
    assert {"licence", "source", "context", "vocabulary", "parameters", "default", "sha256"} <= set(facts)
    assert "# mine" in Path("bundles", "mine", "README.md").read_text("utf-8").splitlines()
    assert [model.name for model in choose_models([Path("bundles", "mine")])] == ["mine"]
