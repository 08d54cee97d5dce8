"""No command writes into a folder of slmx that surrounds its output: a checkpoint, a run, a bundle or a data set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from slm.console.errors import SlmxError
from slm.folder_kind import check_outside
from tests import bundles
from tests.bundles import Slmx

FROZEN = Path(__file__).parents[1] / "frozen"
Arguments = Callable[[str], list[str | Path]]
COMMANDS: dict[str, Arguments] = {
    "prepare": lambda out: ["prepare", "t.txt", "--out", out, "--force"],
    "train": lambda out: ["train", "--text", "data", "--out", out],
    "average": lambda out: ["average", "checkpoint", "run/best", "--text", "t.txt", "--out", out, "--force"],
    "import": lambda out: ["import", "gpt2", "--out", out, "--force"],
    "export": lambda out: ["export", "--checkpoint", "checkpoint", "--out", out, "--force"],
    "pull": lambda out: ["pull", "someone/tales", "--out", out],
    "pack": lambda out: ["pack", "bundle", "--out", out, "--force"],
    "unpack": lambda out: ["unpack", "b.slmx", "--out", out, "--force"],
    "web": lambda out: ["web", "bundle", "--out", out, "--force"],
    "bench": lambda out: ["bench", "bundle", "--out", out],
    "evaluate": lambda out: ["evaluate", "bundle", "--text", "t.txt", "--out", out],
}
KINDS = {
    "checkpoint": "a slmx checkpoint",
    "run": "a training run",
    "bundle": "a bundle",
    "data": "a prepared data set",
}


@pytest.fixture
def home(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one of each kind, which is the working folder."""
    home = tmp_path / "mÿ files"
    home.mkdir()
    monkeypatch.chdir(home)
    shutil.copytree(tiny_checkpoint, home / "checkpoint")
    shutil.copytree(tiny_checkpoint, home / "run" / "best")
    (home / "run" / "run.json").write_text(json.dumps({"data": str(home / "data")}), "utf-8")
    bundles.copy_of(bundles.tiny_bundle(tiny_checkpoint), home / "bundle")
    shutil.copytree(FROZEN / "dataset-2", home / "data")
    (home / "t.txt").write_text("Once.\n\nTwice.\n", "utf-8")
    return home


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_writes_into_a_folder_of_slmx(slmx: Slmx, home: Path, command: str) -> None:
    if command == "unpack":
        assert slmx("pack", "bundle", "--out", "b.slmx").code == 0
    for folder, kind in KINDS.items():
        for out in (f"{folder}/new", f"{folder}/best", f"{folder}/more/new"):
            assert slmx.refuses_unchanged(*COMMANDS[command](out)) == (
                f"{out}: inside {home / folder}, {kind}, which would then hold something that is not its own; "
                "choose another --out"
            )


def test_a_link_into_such_a_folder_is_seen_through(home: Path) -> None:
    (home / "link").symlink_to(home / "run" / "samples")
    with pytest.raises(SlmxError, match=f"^link/new: inside {home / 'run'}, a training run"):
        check_outside(Path("link/new"))


@pytest.mark.parametrize("frozen", ["bundle-2", "bundle-3", "checkpoint-1", "dataset-1", "dataset-2"])
def test_folders_of_earlier_versions_count(frozen: str) -> None:
    with pytest.raises(SlmxError, match="which would then hold something that is not its own"):
        check_outside(FROZEN / frozen / "new")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", {"model_type": "gpt2"}),
        ("dataset.json", {"name": "mine"}),
        ("manifest.json", {"files": {}}),
        ("run.json", ["data"]),
        ("run.json", {"data": "s3://mine"}),
        ("config.json", {"sha256": "1f"}),
        ("manifest.json", {"variants": ["red"]}),
        ("dataset.json", {"sources": [], "files": []}),
        ("best/config.json", {"sha256": {}}),
    ],
)
def test_a_folder_of_others_is_written_to(tmp_path: Path, file: str, content: object) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(json.dumps(content), "utf-8")
    check_outside(tmp_path / "new")
    check_outside(tmp_path)
