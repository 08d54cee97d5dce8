"""A checkpoint comes back as it was saved, or is refused with the file named."""

from __future__ import annotations

import errno
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

import slm.checkpoint
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
from slm.hashing import sha256_of
from slm.presets import get_preset
from slm.tokenizer import RANKS_FILE


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


def edit(folder: Path, **changes: object) -> None:
    path = folder / CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def swap(folder: Path, name: str, content: bytes) -> None:
    """Change a file, and its hash with it."""
    (folder / name).write_bytes(content)
    hashes = json.loads((folder / CONFIG_FILE).read_text())["sha256"]
    edit(folder, sha256=hashes | {name: sha256_of(folder / name)})


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
    with pytest.raises(SlmxError, match="missing from the checkpoint") as caught:
        load_checkpoint(copy)
    assert str(copy / name) in str(caught.value)


@pytest.mark.parametrize("name", HASHED_FILES)
def test_a_file_that_may_not_be_read_is_named(
    name: str, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> str:
        if path.name == name:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return sha256_of(path)

    monkeypatch.setattr(slm.checkpoint, "sha256_of", refuse)
    with pytest.raises(SlmxError) as caught:
        load_checkpoint(tiny_checkpoint)
    assert str(caught.value) == f"{tiny_checkpoint / name}: cannot read (Permission denied)"


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


@pytest.mark.parametrize("shape", [None, 5, "wide", [], {}])
def test_a_shape_that_is_none(shape: object, copy: Path) -> None:
    edit(copy, shape=shape)
    with pytest.raises(SlmxError) as caught:
        load_checkpoint(copy)
    assert str(caught.value).startswith(f"{copy / CONFIG_FILE}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sizes", [{"n_embd": 2_000_000}, {"n_layer": 10**12}, {"vocab_size": 10**12}, {"n_layer": 1}])
def test_the_weights_decide_what_is_built(sizes: dict[str, int], copy: Path) -> None:
    edit(copy, shape=json.loads((copy / CONFIG_FILE).read_text())["shape"] | sizes)
    with pytest.raises(SlmxError, match=r"model\.safetensors: does not fit the shape in config\.json \(.* parameters"):
        load_checkpoint(copy)


def test_as_many_weights_in_another_shape_are_refused(copy: Path) -> None:
    shape = json.loads((copy / CONFIG_FILE).read_text())["shape"]
    moved = {"block_size": shape["block_size"] + 1, "vocab_size": shape["vocab_size"] - 1}
    edit(copy, shape=shape | moved)
    with pytest.raises(SlmxError, match=r"model\.safetensors: does not fit the shape in config\.json") as caught:
        load_checkpoint(copy)
    assert "\n" not in str(caught.value)


def test_a_newer_format_is_told_from_damage_whatever_else_it_holds(copy: Path) -> None:
    (copy / CONFIG_FILE).write_text('{"format_version": 2, "model": {}}')
    with pytest.raises(SlmxError, match=r"config\.json: checkpoint format 2, this slmx reads 1; upgrade slmx"):
        load_checkpoint(copy)


def test_weights_that_are_no_safetensors(copy: Path) -> None:
    swap(copy, WEIGHTS_FILE, b"x" * 1000)
    with pytest.raises(SlmxError, match=r"model\.safetensors: does not fit"):
        load_checkpoint(copy)


def test_the_tokenizer_of_another_model(copy: Path) -> None:
    lines = (copy / RANKS_FILE).read_bytes().splitlines(keepends=True)
    swap(copy, RANKS_FILE, b"".join(lines[:-5]))
    with pytest.raises(SlmxError, match="395 tokens in the tokenizer, 400 in the model"):
        load_checkpoint(copy)


def test_no_pickle_is_written_or_read(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("pickle")

    for name in ("load", "loads", "dump", "dumps", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    first = load_checkpoint(tiny_checkpoint)
    save_checkpoint(tmp_path, first.preset, first.model, first.tokenizer, first.merges, first.record)
    assert load_checkpoint(tmp_path).preset == "nano"
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors", ".tiktoken"}


def test_a_run_leads_to_its_best_and_an_empty_folder_to_advice(tiny_checkpoint: Path, tmp_path: Path) -> None:
    for step in ("step-0000250", "step-0000500"):
        shutil.copytree(tiny_checkpoint, tmp_path / "run" / step)
        assert find_checkpoint(tmp_path / "run").name == step
    shutil.copytree(tiny_checkpoint, tmp_path / "run" / "best")
    assert find_checkpoint(tmp_path / "run").name == "best"
    with pytest.raises(SlmxError, match=r"no checkpoint here.*slmx train"):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("preset", "parameters", "most_bytes", "most_bits"),
    [("nano", 1_850_112, 5_000_000, 0.80), ("micro", 4_254_720, 9_000_000, 0.76)],
)
def test_what_ships_is_small_and_was_recorded(preset: str, parameters: int, most_bytes: int, most_bits: float) -> None:
    folder = PRETRAINED / preset
    assert sum(path.stat().st_size for path in folder.iterdir()) <= most_bytes
    checkpoint = load_checkpoint(folder)
    record = checkpoint.record
    assert checkpoint.model.config == get_preset(preset).config
    assert record["parameters"] == checkpoint.model.config.parameters == parameters
    assert record["best"]["bits_per_byte"] <= most_bits
    assert record["best"] == min(record["curve"], key=lambda point: point["bits_per_byte"])
    assert [item["side"] for item in record["data"]] == ["training", "validation"]
    assert "CDLA-Sharing-1.0" in record["licence"]
    assert record["tokens_seen"] == record["steps_done"] * record["plan"]["batch_size"] * 256
    assert isinstance(record["plan"]["seed"], int)


def test_no_pickle_in_the_project() -> None:
    root = Path(__file__).parents[2]
    for package in ("slm", "export", "runtimes", "benchmarks"):
        for path in (root / package).rglob("*.py"):
            text = path.read_text("utf-8")
            assert "import pickle" not in text, path
            assert "torch.load" not in text, path
            assert "torch.save" not in text, path


def test_the_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
