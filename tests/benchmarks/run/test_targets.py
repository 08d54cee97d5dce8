"""The targets of a run: their names, their float model, where they write, and what peers open."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.peers import PeerKind
from benchmarks.run import targets
from benchmarks.run.targets import Target, target_names, target_of_bundle
from runtimes.bundle.store import Bundle
from slm.console.errors import SlmxError
from tests import bundles
from tests.benchmarks.peers.kinds import peer

pytestmark = pytest.mark.slow


@pytest.fixture
def target(bundle: Path, tmp_path: Path) -> Target:
    return target_of_bundle(Bundle.open(bundle), "nano", tmp_path / "work é 50%#", trusted=False)


def test_a_quantized_bundle_from_elsewhere_needs_its_float_model(bundle: Path, tmp_path: Path) -> None:
    alone = bundles.copy_of(bundle, tmp_path / "alone")
    manifest = json.loads((alone / "manifest.json").read_text("utf-8"))
    manifest["variants"] = {"int8": manifest["variants"]["int8"]}
    bundles.edit_manifest(alone, variants=manifest["variants"], default="int8")
    with pytest.raises(SlmxError, match="no fp32 variant to compare the others with; export it again"):
        target_of_bundle(Bundle.open(alone), "nano", tmp_path / "work", trusted=False)


def test_bundles_of_one_name_go_by_their_folders(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    title = opened.manifest.title
    assert target_names([opened], ["nano"]) == [title]
    assert target_names([opened], [title]) == [str(bundle)]
    assert target_names([opened, opened], []) == [str(bundle)] * 2


def test_a_peer_that_cannot_be_prepared_fails_with_its_last_line(bundle: Path, tmp_path: Path) -> None:
    target = target_of_bundle(Bundle.open(bundle), "nano", tmp_path / "work", trusted=False)
    with pytest.raises(SlmxError, match=r"preparing its files failed: .*unknown peer 'other'"):
        target.peer_files(peer())
    assert not list((tmp_path / "work").rglob("other*"))


def test_files_that_another_version_of_a_peer_wrote_are_written_again(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = "import sys, json; open(sys.argv[-1] + '/model.bin', 'w').close()"
    monkeypatch.setattr(targets, "PREPARE", (sys.executable, "-c", write))
    kind = peer(modules=("typer",), writers=("rich.console",))
    assert set(kind.versions) == {"typer", "rich"}
    first = target.peer_files(kind)
    assert [path.name for path in first.iterdir()] == ["model.bin"]
    with monkeypatch.context() as patch:
        patch.setattr(targets, "PREPARE", (sys.executable, "-c", "raise SystemExit('written again')"))
        assert target.peer_files(kind) == first
    monkeypatch.setattr(PeerKind, "versions", {"typer": "0.0.1"})
    assert target.peer_files(kind) != first


@pytest.mark.parametrize("preset", ["../../x", "/tmp/x", "..", "a/b", "nano/../../x"])
def test_no_name_in_a_manifest_leads_out_of_the_work_folder(bundle: Path, tmp_path: Path, preset: str) -> None:
    opened = Bundle.open(bundle)
    hostile = replace(opened, manifest=replace(opened.manifest, preset=preset))
    work = tmp_path / "a" / "b" / "work é 50%#"
    with pytest.raises(SlmxError, match="preset is not a plain name"):
        target_of_bundle(hostile, "x", work, trusted=False)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert all(path.is_relative_to(work) for path in written)


def test_the_shipped_checkpoint_is_found_by_a_presets_name_only(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path
) -> None:
    monkeypatch.setattr(targets, "PRETRAINED", tmp_path / "shipped")
    bundles.copy_of(tiny_checkpoint, tmp_path / "nano")
    opened = Bundle.open(bundle)
    hostile = replace(opened, manifest=replace(opened.manifest, preset="../nano"))
    with pytest.raises(SlmxError, match=r"work.*preset is not a plain name"):
        target_of_bundle(hostile, "x", tmp_path / "work", trusted=False)


@pytest.mark.parametrize(
    ("code", "note"),
    [
        ("sys.stderr.buffer.write(b'first\\ncaf\\xe9 \\x1b[31mred'); sys.exit(1)", "caf\ufffd ?[31mred"),
        ("sys.exit(3)", "exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", "exit code -9"),
    ],
    ids=["not UTF-8", "silent", "killed"],
)
def test_a_converter_that_fails_is_reported_in_one_line(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, note: str
) -> None:
    monkeypatch.setattr(targets, "PREPARE", (sys.executable, "-c", f"import sys; {code}"))
    with pytest.raises(SlmxError) as error:
        target.peer_files(peer())
    assert str(error.value) == f"preparing its files failed: {note}"
    assert not list((tmp_path / "work é 50%#").rglob("other*"))


def test_a_name_with_control_characters_is_shown_without_them(bundle: Path, tmp_path: Path) -> None:
    folder = bundles.copy_of(bundle, tmp_path / "a\x1b[31m\udce9")
    opened = Bundle.open(folder)
    assert target_names([opened], [opened.manifest.title]) == [f"{tmp_path}/a?[31m?"]


def of_record(target: Target, record: dict[str, object]) -> float | None:
    return replace(target, checkpoint=replace(target.checkpoint, record=record)).training_seconds


def test_the_training_time_is_the_sum_of_all_trainings(target: Target) -> None:
    first: dict[str, object] = {"seconds": 4445.2, "init": None}
    second: dict[str, object] = {"seconds": 1161.1, "init": {"config_sha256": "0", "record": first}}
    assert of_record(target, first) == 4445.2
    assert of_record(target, second) == pytest.approx(5606.3)
    assert of_record(target, {"seconds": 1, "init": {"record": second}}) == pytest.approx(5607.3)
    assert of_record(target, {"init": {"record": "damaged"}}) is None
    assert of_record(target, {"seconds": 5, "init": "nano"}) == 5
