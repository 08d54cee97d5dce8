"""A checkpoint is loaded as it was saved, or refused with a message that names the file."""

from __future__ import annotations

import errno
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import slm.checkpoint
import slm.storage.listing
from slm.checkpoint import load_checkpoint, save_checkpoint
from slm.checkpoint_config import CONFIG_FILE
from slm.console.errors import SlmxError
from slm.folder_kind import HASHED_FILES, PRETRAINED, find_checkpoint
from slm.model import GPT
from slm.presets import as_architecture, get_preset
from slm.storage.file_names import WEIGHTS_FILE
from slm.storage.hashing import sha256_of
from slm.tokenizers.tokenizer import Tokenizer
from tests.bundles import copy_of


def test_saved_and_loaded_is_the_same(tiny_checkpoint: Path, tmp_path: Path) -> None:
    first = load_checkpoint(tiny_checkpoint)
    save_checkpoint(tmp_path, first.preset, first.model, first.tokenizer, first.merges, first.record)
    second = load_checkpoint(tmp_path)
    assert not second.model.training
    assert second.model.config == first.model.config
    assert second.tokenizer == first.tokenizer
    assert second.record == first.record
    assert second.merges == first.merges
    assert second.hashes == {name: sha256_of(tmp_path / name) for name in HASHED_FILES}
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


def test_weights_that_float16_cannot_hold_are_stored_in_float32(tiny_checkpoint: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(tiny_checkpoint)
    with torch.no_grad():
        loaded.model.get_parameter("ln_f.weight")[0] = 1e5
    save_checkpoint(tmp_path, "nano", loaded.model, loaded.tokenizer, loaded.merges, loaded.record, dtype=torch.float16)
    weights = load_checkpoint(tmp_path).model.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in loaded.model.state_dict().items())


@pytest.mark.parametrize("name", HASHED_FILES)
def test_every_file_missing_truncated_or_altered_is_named(name: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    copy = copy_of(tiny_checkpoint, tmp_path / "copy")
    content = (copy / name).read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    for spoilt in (content[:-1], bytes(flipped), b""):
        (copy / name).write_bytes(spoilt)
        with pytest.raises(SlmxError, match="truncated or altered") as caught:
            load_checkpoint(copy)
        assert str(copy / name) in str(caught.value)
    (copy / name).unlink()
    with pytest.raises(SlmxError, match=r"missing, but config\.json lists it") as caught:
        load_checkpoint(copy)
    assert str(copy / name) in str(caught.value)


@pytest.mark.parametrize("change", ["weights", "shape", "tokenizer"])
@pytest.mark.parametrize("moment", ["check_file", "read_tensors", "load_merges"])
def test_a_checkpoint_that_another_one_replaces_while_it_is_read_is_refused(
    moment: str, change: str, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hashes of the one would be listed for the weights of the other, or its files would seem damaged."""
    best, first = tmp_path / "best", load_checkpoint(tiny_checkpoint)
    shutil.copytree(tiny_checkpoint, best)
    config, tokenizer, before = first.model.config, first.tokenizer, getattr(slm.checkpoint, moment)
    if change == "shape":
        config = replace(config, n_layer=config.n_layer + 1)
    if change == "tokenizer":
        tokenizer = Tokenizer(tokenizer.tokens[:-5])
        config = replace(config, vocab_size=tokenizer.vocab_size)

    def exchanged(*args: Path | str) -> object:
        save_checkpoint(best, "nano", GPT(config), tokenizer, first.merges, {})
        return before(*args)

    monkeypatch.setattr(slm.checkpoint, moment, exchanged)
    with pytest.raises(SlmxError) as caught:
        load_checkpoint(best)
    assert str(caught.value) == f"{best}: another checkpoint took its place while it was read; run the command again"


@pytest.mark.parametrize("name", HASHED_FILES)
def test_a_file_that_may_not_be_read_is_named(
    name: str, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> str:
        if path.name == name:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return sha256_of(path)

    monkeypatch.setattr(slm.storage.listing, "sha256_of", refuse)
    with pytest.raises(SlmxError) as caught:
        load_checkpoint(tiny_checkpoint)
    assert str(caught.value) == f"{tiny_checkpoint / name}: cannot read (Permission denied); check its permissions"


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
    with pytest.raises(SlmxError, match=r"no slmx checkpoint here \(.*slmx train"):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("preset", "arch", "parameters", "most_bytes", "most_bits"),
    [("nano", "llama", 1_827_968, 5_000_000, 0.745), ("micro", "llama", 4_192_704, 9_000_000, 0.72)],
)
def test_what_ships_is_small_and_was_recorded(
    preset: str, arch: str, parameters: int, most_bytes: int, most_bits: float
) -> None:
    folder = PRETRAINED / preset
    assert sum(path.stat().st_size for path in folder.iterdir()) <= most_bytes
    checkpoint = load_checkpoint(folder)
    record = checkpoint.record
    assert checkpoint.model.config == as_architecture(get_preset(preset).config, arch)
    assert record["parameters"] == checkpoint.model.config.parameters == parameters
    assert record["best"]["bits_per_byte"] <= most_bits
    assert record["best"] == min(record["curve"], key=lambda point: point["bits_per_byte"])
    assert {item["split"] for item in record["data"]} == {"train", "valid"}
    assert "CDLA-Sharing-1.0" in record["licence"]
    assert record["tokens_seen"] == record["steps_done"] * record["plan"]["batch_size"] * 256
    assert isinstance(record["plan"]["seed"], int)


def test_the_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
