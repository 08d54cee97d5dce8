"""Checkpoints and the folders they are written in: whole, known by their hashes, or not there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from slm.checkpoint import (
    CONFIG_FILE,
    HASHED_FILES,
    PRETRAINED,
    WEIGHTS_FILE,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from slm.errors import SlmxError
from slm.folders import atomic_folder
from slm.hashing import sha256_of

DISK_FULL = """
import resource, sys
from pathlib import Path
from slm.errors import SlmxError
from slm.folders import atomic_folder
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with atomic_folder(Path(sys.argv[1]), replace=True) as folder:
        (folder / "big").write_bytes(b"x" * 5000)
except SlmxError as error:
    print(error)
"""


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


def edit(folder: Path, **changes: object) -> None:
    path = folder / CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_saved_and_loaded_is_the_same(tiny_checkpoint: Path, tmp_path: Path) -> None:
    first = load_checkpoint(tiny_checkpoint)
    save_checkpoint(tmp_path, first.preset, first.model, first.tokenizer, first.merges, first.record)
    second = load_checkpoint(tmp_path)
    assert not second.model.training
    assert second.model.config == first.model.config
    assert second.tokenizer.ranks == first.tokenizer.ranks
    assert second.record == first.record
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name
    assert {path.name for path in tmp_path.iterdir()} == {CONFIG_FILE, *HASHED_FILES}


def test_float16_halves_the_file_and_loads_as_float32(tiny_checkpoint: Path, tmp_path: Path) -> None:
    first = load_checkpoint(tiny_checkpoint)
    save_checkpoint(tmp_path, "nano", first.model, first.tokenizer, first.merges, {}, torch.float16)
    assert (tmp_path / WEIGHTS_FILE).stat().st_size < 0.6 * (tiny_checkpoint / WEIGHTS_FILE).stat().st_size
    second = load_checkpoint(tmp_path)
    assert second.model.wte.weight.dtype == torch.float32
    torch.testing.assert_close(second.model.wte.weight, first.model.wte.weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", HASHED_FILES)
def test_every_file_missing_truncated_or_altered_is_named(name: str, copy: Path) -> None:
    content = (copy / name).read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    for spoilt in (content[:-1], bytes(flipped), b""):
        (copy / name).write_bytes(spoilt)
        with pytest.raises(SlmxError, match="truncated or altered") as caught:
            load_checkpoint(copy)
        assert str(copy / name) in str(caught.value)
    (copy / name).unlink()
    with pytest.raises(SlmxError, match="missing from the checkpoint"):
        load_checkpoint(copy)


def test_another_format_or_shape(copy: Path) -> None:
    shape = json.loads((copy / CONFIG_FILE).read_text())["shape"]
    edit(copy, format_version=2)
    with pytest.raises(SlmxError, match="format 2, this slmx reads 1; upgrade"):
        load_checkpoint(copy)
    edit(copy, format_version=1, shape=shape | {"n_embd": 64})
    with pytest.raises(SlmxError, match="does not fit the shape"):
        load_checkpoint(copy)
    edit(copy, shape={"n_embd": 64})
    with pytest.raises(SlmxError, match="shape lacks"):
        load_checkpoint(copy)


@pytest.mark.parametrize("content", ["", "[]", "{}", "nonsense", '{"format_version": 1}'])
def test_a_config_that_is_none(content: str, copy: Path) -> None:
    (copy / CONFIG_FILE).write_text(content)
    with pytest.raises(SlmxError, match="not a slmx checkpoint"):
        load_checkpoint(copy)


def test_a_run_leads_to_its_best_and_an_empty_folder_to_advice(tiny_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_checkpoint, tmp_path / "run" / "last")
    assert find_checkpoint(tmp_path / "run").name == "last"
    shutil.copytree(tiny_checkpoint, tmp_path / "run" / "best")
    assert find_checkpoint(tmp_path / "run").name == "best"
    with pytest.raises(SlmxError, match=r"no checkpoint here.*slmx train"):
        find_checkpoint(tmp_path)


def test_what_ships_is_small_and_was_recorded() -> None:
    folder = PRETRAINED / "nano"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 8_000_000
    checkpoint = load_checkpoint(folder)
    record = checkpoint.record
    assert record["parameters"] == checkpoint.model.config.parameters == 1_850_112
    assert record["best"]["bits_per_byte"] <= 0.88
    assert record["best"] == min(record["curve"], key=lambda point: point["bits_per_byte"])
    assert {item["side"] for item in record["data"]} == {"training", "validation"}
    assert "CDLA-Sharing-1.0" in record["licence"]
    assert record["tokens_seen"] == record["steps_done"] * record["plan"]["batch_size"] * 256
    assert isinstance(record["plan"]["seed"], int)


def test_no_pickle_in_the_project() -> None:
    root = Path(__file__).parent.parent
    for package in ("slm", "export", "runtimes", "benchmarks"):
        for path in (root / package).rglob("*.py"):
            text = path.read_text("utf-8")
            assert "import pickle" not in text, path
            assert "torch.load" not in text, path
            assert "torch.save" not in text, path


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    with atomic_folder(target, replace=False) as folder:
        (folder / "a").write_text("1")
        assert not target.exists()
    assert (target / "a").read_text() == "1"
    with atomic_folder(target, replace=True) as folder:
        (folder / "b").write_text("2")
        assert (target / "a").read_text() == "1"
    assert [path.name for path in target.iterdir()] == ["b"]
    assert [path.name for path in target.parent.iterdir()] == ["out"]


def fail_half_way(target: Path) -> None:
    with atomic_folder(target, replace=True) as folder:
        (folder / "b").write_text("half")
        raise KeyboardInterrupt


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "a").write_text("1")
    with pytest.raises(KeyboardInterrupt):
        fail_half_way(target)
    assert [path.name for path in target.iterdir()] == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_folder_or_a_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("1")
    (tmp_path / "file").write_text("1")
    for name, said in (("full", "not empty.*--force"), ("file", "a file stands")):
        with pytest.raises(SlmxError, match=said), atomic_folder(tmp_path / name, replace=False):
            pass
    assert (tmp_path / "full" / "a").exists()


def test_a_full_disk_is_one_line_and_leaves_the_old(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "a").write_text("1")
    root = str(Path(__file__).parent.parent)
    command = [sys.executable, "-c", DISK_FULL, str(target)]
    ran = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith(f"{target}: cannot write")
    assert len(ran.stdout.splitlines()) == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "a"]


def test_the_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
