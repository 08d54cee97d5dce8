"""A data set in its folder: shards, record and refusals."""

from __future__ import annotations

import errno
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.lib.format import open_memmap
from rich.console import Console

import slm.data.dataset
from slm.console.errors import SlmxError
from slm.data.corpus import TokenStream, encode_stories
from slm.data.dataset import Dataset, ShardWriter
from slm.data.prepare import PrepareSettings, is_held_out, prepare
from slm.storage.hashing import sha256_of
from tests.runs import QUIET


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(st.integers(0, 65535), max_size=7), max_size=12), size=st.integers(1, 9))
def test_shards_hold_what_was_added(
    batches: list[list[int]], size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("slm.data.dataset.SHARD_TOKENS", size)
        writer = ShardWriter(folder, "train")
        for batch in batches:
            writer.add(TokenStream(np.array(batch, np.uint16), 3 * len(batch), 1))
        entry = writer.close()
    whole = [i for batch in batches for i in batch]
    arrays = [np.load(folder / name, mmap_mode="r") for name in entry["shards"]]
    assert [i for array in arrays for i in array.tolist()] == whole
    assert all(len(array) == size for array in arrays[:-1])
    assert (entry["tokens"], entry["text_bytes"], entry["stories"]) == (len(whole), 3 * len(whole), len(batches))


def test_several_shards_read_as_one(plan: PrepareSettings, monkeypatch: pytest.MonkeyPatch, stories: list[str]) -> None:
    monkeypatch.setattr("slm.data.dataset.SHARD_TOKENS", 1000)
    dataset = prepare(plan, QUIET)
    assert len(dataset.record["splits"]["train"]["shards"]) > 5
    expected = encode_stories([story for story in stories if not is_held_out(story)], dataset.tokenizer)
    np.testing.assert_array_equal(dataset.train.ids[:], expected.ids[:])
    np.testing.assert_array_equal(dataset.train.ids[995:2012], expected.ids[995:2012])


def as_format_1(folder: Path) -> None:
    """Writes the record of a data set in format 1."""
    path = folder / "dataset.json"
    record = json.loads(path.read_text("utf-8"))
    names = {"train": "training", "valid": "validation"}
    record["format_version"] = 1
    record["sources"] = [{"side": names[source.pop("split")], **source} for source in record["sources"]]
    record["cleaning"] = {names[split]: counts for split, counts in record["cleaning"].items()}
    record["sides"] = record.pop("splits")
    path.write_text(json.dumps(record), "utf-8")


def test_a_data_set_of_format_1_stays_readable_and_up_to_date(plan: PrepareSettings, console: Console) -> None:
    dataset = prepare(plan, QUIET)
    as_format_1(plan.out)
    old = Dataset.open(plan.out)
    assert old.record == dataset.record | {"format_version": 1}
    np.testing.assert_array_equal(old.valid.ids[:], dataset.valid.ids[:])
    prepare(plan, console)
    assert "up to date" in console.export_text()


def test_a_shard_that_vanishes_while_it_is_opened_is_named(
    plan: PrepareSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(plan, QUIET)

    def vanishing(path: Path, mode: str) -> Any:  # noqa: ANN401  # a mapped array
        path.unlink()
        return open_memmap(path, mode=mode)

    monkeypatch.setattr("slm.data.dataset.open_memmap", vanishing)
    with pytest.raises(SlmxError, match=r"train-00000\.npy: cannot read the data set \(No such file.*\); make it with"):
        Dataset.open(plan.out)


@pytest.mark.parametrize("moment", ["check_file", "load_merges"])
def test_a_data_set_that_another_one_replaces_while_it_is_read_is_refused(
    moment: str, plan: PrepareSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = prepare(replace(plan, out=plan.out.with_name("other"), vocab_size=290), QUIET).folder
    prepare(plan, QUIET)
    before = getattr(slm.data.dataset, moment)

    def replaced(*args: Path | str) -> object:
        shutil.copytree(other, plan.out, dirs_exist_ok=True)
        return before(*args)

    monkeypatch.setattr(slm.data.dataset, moment, replaced)
    with pytest.raises(SlmxError) as caught:
        Dataset.open(plan.out)
    assert str(caught.value) == f"{plan.out}: another data set took its place while it was read; run the command again"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            "changed",
            r"train-00000\.npy: truncated or altered \(SHA-256 differs\); delete the folder and prepare it again",
        ),
        ("truncated", r"train-00000\.npy: truncated or altered"),
        ("missing", r"train-00000\.npy: missing, but dataset\.json lists it; delete the folder and prepare it again"),
        ("tokenizer", r"tokenizer\.json: truncated or altered"),
        ("version", "data set format 3, this slmx reads up to 2; prepare it again"),
        ("nonsense", r"not a data set of slmx prepare .*; prepare it again"),
        ("gone", r"cannot read the data set \(No such file"),
        ("nested", "not a data set of slmx prepare"),
        ("elsewhere", r"not a data set of slmx prepare .*\.\./train-00000\.npy"),
        ("floats", "not a data set of slmx prepare .* is not a row of uint16"),
        ("vocabulary", r"train-00000\.npy holds the id 60000, and the tokenizer has \d+"),
        ("empty", "not a data set of slmx prepare .*a split without tokens"),
        ("text bytes", r"not a data set of slmx prepare .*splits\.train\.text_bytes is not a whole number"),
        ("settings", "not a data set of slmx prepare .*settings is not an object"),
        ("sources", r"not a data set of slmx prepare .*sources\.0 is not an object"),
        ("twice", "not a data set of slmx prepare .*the key 'splits' is there twice"),
    ],
)
def test_a_damaged_data_set_is_named(plan: PrepareSettings, damage: str, message: str) -> None:
    prepare(plan, QUIET)
    shard, record = plan.out / "train-00000.npy", plan.out / "dataset.json"
    if damage == "changed":
        content = bytearray(shard.read_bytes())
        content[-3] ^= 1
        shard.write_bytes(content)
    elif damage == "truncated":
        shard.write_bytes(shard.read_bytes()[:-2])
    elif damage == "missing":
        shard.unlink()
    elif damage == "tokenizer":
        (plan.out / "tokenizer.json").write_text("{}")
    elif damage == "version":
        record.write_text(json.dumps(json.loads(record.read_text()) | {"format_version": 3}))
    elif damage == "nonsense":
        record.write_text("[1]")
    elif damage == "nested":
        record.write_text("[" * 100_000)
    elif damage == "elsewhere":
        shard.rename(plan.out.parent / shard.name)
        record.write_text(record.read_text().replace("train-00000.npy", "../train-00000.npy"))
    elif damage in ("floats", "vocabulary", "empty"):
        before = sha256_of(shard)
        ids: dict[str, npt.NDArray[Any]] = {
            "floats": np.zeros(5),
            "vocabulary": np.full(5, 60_000, np.uint16),
            "empty": np.zeros(0, np.uint16),
        }
        np.save(shard, ids[damage])
        record.write_text(record.read_text().replace(before, sha256_of(shard)))
    elif damage == "text bytes":
        record.write_text(re.sub(r'"text_bytes": \d+', '"text_bytes": "many"', record.read_text()))
    elif damage in ("settings", "sources"):
        record.write_text(json.dumps(json.loads(record.read_text()) | {damage: [7]}))
    elif damage == "twice":
        record.write_text('{"splits": 1, ' + record.read_text().lstrip()[1:])
    else:
        record.unlink()
    with pytest.raises(SlmxError, match=message):
        Dataset.open(plan.out)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_full_disk_under_a_shard_is_an_error_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "train-00000.npy").symlink_to("/dev/full")
    writer = ShardWriter(tmp_path, "train")
    writer.add(TokenStream(np.arange(5, dtype=np.uint16), 5, 1))
    with pytest.raises(OSError, match="No space left on device") as caught:
        writer.close()
    assert caught.value.errno == errno.ENOSPC


def test_a_shard_is_a_file_of_numpy(tmp_path: Path) -> None:
    ids = np.arange(5, dtype=np.uint16)
    writer = ShardWriter(tmp_path, "train")
    writer.add(TokenStream(ids, 5, 1))
    writer.close()
    np.save(tmp_path / "theirs.npy", ids)
    assert (tmp_path / "train-00000.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()
