"""An impossible export is refused in one line, and the earlier content of the folder is kept."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import export.exporter
from export.exporter import export_bundle
from export.formats.recipes import RECIPE_NAMES
from export.settings import ExportSettings
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from slm.presets import PRESETS
from slm.storage.disk import write_advice
from slm.storage.file_names import MANIFEST_FILE
from tests import bundles
from tests.bundles import Slmx

pytestmark = pytest.mark.slow

DISK_FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.argv = ["slmx", *sys.argv[2:]]
from slm.cli import main
main()
"""


@pytest.fixture
def spoilt_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return bundles.copy_of(tiny_checkpoint, tmp_path / "checkpoint")


def test_an_unknown_preset_lists_those_there_are(slmx: Slmx) -> None:
    assert (
        slmx.refuses_unchanged("export", "--preset", "pico", code=2)
        == f"--preset: unknown preset 'pico' (did you mean micro?): choose one of {', '.join(PRESETS)}"
    )


def test_a_preset_without_a_shipped_checkpoint_says_how_to_train_one(slmx: Slmx) -> None:
    line = slmx.refuses_unchanged("export", "--preset", "medium")
    assert "no medium checkpoint is in this installation" in line
    assert "slmx train --preset medium" in line
    assert "--checkpoint DIR" in line


def test_an_unknown_recipe_lists_those_there_are(slmx: Slmx, tiny_checkpoint: Path) -> None:
    line = slmx.refuses_unchanged("export", "--checkpoint", tiny_checkpoint, "--int8", "--int8-recipe", "int3", code=2)
    assert line == f"--int8-recipe: unknown int8 recipe 'int3': choose one of {', '.join(RECIPE_NAMES)}"


def test_nothing_to_export(slmx: Slmx, tiny_checkpoint: Path) -> None:
    line = slmx.refuses_unchanged("export", "--checkpoint", tiny_checkpoint, "--no-fp32", code=2)
    assert line == "nothing to export: --no-fp32 needs another variant, such as --int8"


def test_a_recipe_of_int8_without_int8(slmx: Slmx, tiny_checkpoint: Path) -> None:
    line = slmx.refuses_unchanged("export", "--checkpoint", tiny_checkpoint, "--int8-recipe", "u8-channel", code=2)
    assert line == "--int8-recipe is about int8: add --int8"


@pytest.mark.parametrize(
    ("make", "reason"),
    [(Path.mkdir, "not a regular file"), (os.mkfifo, "not a regular file"), (lambda path: None, "no such file")],
    ids=["folder", "pipe", "missing"],
)
def test_a_text_that_is_no_file_is_refused_before_any_work(
    slmx: Slmx, tiny_checkpoint: Path, make: Callable[[Path], object], reason: str
) -> None:
    bundles.copy_of(bundles.tiny_bundle(tiny_checkpoint), Path("bundles", tiny_checkpoint.name))
    make(Path("stories"))
    ran = slmx("export", "--checkpoint", tiny_checkpoint, "--text", "stories")
    line = f"slmx: stories: {reason}; --text takes one file of stories, whose hash is recorded\n"
    assert (ran.code, ran.stdout, ran.stderr) == (1, "", line)


def test_a_missing_checkpoint_says_how_to_make_one(slmx: Slmx) -> None:
    assert slmx.refuses_unchanged("export", "--checkpoint", "nowhere") == (
        "nowhere: no slmx checkpoint here (no such file or folder); slmx train --text STORIES --out nowhere makes one"
    )


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.tiktoken", "tokenizer.json", "training.json"])
@pytest.mark.parametrize("damage", [lambda content: content[:-7], lambda content: b"#" + content[1:]])
def test_a_truncated_or_altered_checkpoint_names_the_file(
    slmx: Slmx, spoilt_checkpoint: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    path = spoilt_checkpoint / name
    path.write_bytes(damage(path.read_bytes()))
    line = slmx.refuses_unchanged("export", "--checkpoint", spoilt_checkpoint)
    assert line == f"{path}: truncated or altered (SHA-256 differs); copy the folder again, whole"


def test_a_checkpoint_without_one_of_its_files_names_it(slmx: Slmx, spoilt_checkpoint: Path) -> None:
    (spoilt_checkpoint / "model.safetensors").unlink()
    line = slmx.refuses_unchanged("export", "--checkpoint", spoilt_checkpoint)
    assert line.startswith(f"{spoilt_checkpoint / 'model.safetensors'}: missing, but config.json lists it")


def test_a_checkpoint_of_another_preset(slmx: Slmx, tiny_checkpoint: Path) -> None:
    line = slmx.refuses_unchanged("export", "--preset", "micro", "--checkpoint", tiny_checkpoint)
    assert line == f"{tiny_checkpoint}: a checkpoint of nano, not micro; change --preset"


@pytest.mark.parametrize("preset", ["../../x", "/tmp/x", "a/b", "\x1b[31m"])
@pytest.mark.parametrize("out", [[], ["--out", "b"]])
def test_a_preset_that_could_name_another_folder_is_refused(
    slmx: Slmx, spoilt_checkpoint: Path, preset: str, out: list[str]
) -> None:
    path = spoilt_checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"preset": preset}), "utf-8")
    line = slmx.refuses_unchanged("export", "--checkpoint", spoilt_checkpoint, *out)
    assert line.isprintable()
    assert "is not a plain name" in line


def test_a_bundle_in_the_way_needs_force(slmx: Slmx, tiny_checkpoint: Path) -> None:
    bundles.copy_of(bundles.tiny_bundle(tiny_checkpoint), Path("b"))
    line = slmx.refuses_unchanged("export", "--checkpoint", tiny_checkpoint, "--out", "b")
    again = shlex.join(["slmx", "export", "--checkpoint", str(tiny_checkpoint), "--out", "b", "--force"])
    assert line == f"b: not empty; choose another --out, or --force to replace it: {again}"


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("name", ["thesis.txt", ".hidden", "onnx/notes.txt", MANIFEST_FILE])
def test_files_that_are_no_part_of_a_bundle_are_kept(
    slmx: Slmx, tiny_checkpoint: Path, name: str, force: list[str]
) -> None:
    if name == "onnx/notes.txt":
        bundles.copy_of(bundles.tiny_bundle(tiny_checkpoint), Path("b"))
    else:
        Path("b").mkdir()
    (Path("b") / name).write_text('{"manifest_version": 3, "name": "a browser extension"}', "utf-8")
    line = slmx.refuses_unchanged("export", "--checkpoint", tiny_checkpoint, "--out", "b", *force)
    if name == MANIFEST_FILE:
        problem = f", and {name} does not list the files, so slmx cannot know which are its own"
        assert line == f"b: not empty{problem}; choose another --out, or move the folder away"
    elif name != "onnx/notes.txt":
        problem = f"it holds other files, such as {name}, and slmx writes only to a folder of its own"
        assert line == f"b: not empty: {problem}; choose another --out"
    else:
        problem = f"{name} was not made by slmx or was changed since, and slmx never replaces such a file"
        assert line == f"b: not empty: {problem}; move it away and use --force, or choose another --out"


def test_a_file_where_the_folder_should_go(slmx: Slmx, tiny_checkpoint: Path) -> None:
    Path("b").write_text("mine", "utf-8")
    line = slmx.refuses_unchanged("export", "--checkpoint", tiny_checkpoint, "--out", "b", "--force")
    assert line == "b: a file stands where the folder should go; choose another --out"


@pytest.mark.usefixtures("quick", "ready_graph")
def test_force_replaces_a_bundle_whole(slmx: Slmx, tiny_checkpoint: Path) -> None:
    bundles.copy_of(bundles.tiny_bundle(tiny_checkpoint), Path("b"))
    assert slmx("export", "--checkpoint", tiny_checkpoint, "--out", "b", "--force").code == 0
    assert Bundle.open(Path("b")).variants == ["fp32"]
    assert not (Path("b") / VARIANTS["int8"].file).exists()
    assert [path.name for path in Path.cwd().iterdir()] == ["b"]


@pytest.mark.usefixtures("quick", "ready_graph")
def test_an_empty_folder_and_folders_that_are_not_there_are_filled(slmx: Slmx, tiny_checkpoint: Path) -> None:
    Path("empty").mkdir()
    for out in ("empty", "a/b/c"):
        assert slmx("export", "--checkpoint", tiny_checkpoint, "--out", out).code == 0
        assert Bundle.open(Path(out)).variants == ["fp32"]


@pytest.mark.usefixtures("ready_graph")
@pytest.mark.parametrize("stage", ["fp32: comparing", "float model", "int8", "pt2"])
def test_an_interrupted_export_leaves_the_old_bundle(tiny_checkpoint: Path, tmp_path: Path, stage: str) -> None:
    out = bundles.copy_of(bundles.tiny_bundle(tiny_checkpoint), tmp_path / "b")
    before = bundles.snapshot(tmp_path)

    def interrupt(line: str) -> None:
        if line.startswith(stage):
            raise KeyboardInterrupt

    variants = ("fp32", "int8", "q8", "int4", "fp16", "torchscript", "pt2")
    with bundles.brief_checks(), pytest.raises(KeyboardInterrupt):
        export_bundle(ExportSettings("nano", out, tiny_checkpoint, variants, force=True), interrupt)
    assert bundles.snapshot(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_full_disk_leaves_the_old_bundle(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = bundles.copy_of(bundles.tiny_bundle(tiny_checkpoint), tmp_path / "b")
    before = bundles.snapshot(tmp_path)
    limit = (out / VARIANTS["fp32"].file).stat().st_size - 1
    args = ["export", "--checkpoint", tiny_checkpoint, "--out", out, "--force", "--int8"]
    ran = subprocess.run(
        [sys.executable, "-c", DISK_FULL, str(limit), *map(str, args)],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert ran.stderr.splitlines()[-1].startswith(f"slmx: {out}: cannot write (")
    assert "Traceback" not in ran.stderr
    assert bundles.snapshot(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    Bundle.open(out)


@pytest.mark.usefixtures("quick", "ready_graph")
@pytest.mark.parametrize("error", [28, 122, 30, 13])
def test_a_disk_that_fails_at_the_end_leaves_the_old_bundle(
    slmx: Slmx, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    bundles.copy_of(bundles.tiny_bundle(tiny_checkpoint), Path("b"))

    def fail(*args: object) -> str:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(export.exporter, "model_card", fail)
    line = slmx.refuses_unchanged("export", "--checkpoint", tiny_checkpoint, "--out", "b", "--force")
    assert line == f"b: cannot write ({os.strerror(error)}); nothing was changed there; {write_advice(error)}"
