"""From a corpus to a data set: what is in it, when it is made, what is refused."""

from __future__ import annotations

import io
import json
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from slm.checkpoint import load_checkpoint
from slm.data.corpus import TokenStream, encode_stories
from slm.data.dataset import Dataset, ShardWriter
from slm.data.prepare import PrepareSettings, is_held_out, prepare
from slm.errors import SlmxError
from slm.hashing import sha256_of
from slm.tokenizer import Tokenizer
from tests.conftest import as_corpus, run_slmx
from tests.runs import QUIET


@pytest.fixture
def plan(corpus_file: Path, tmp_path: Path) -> PrepareSettings:
    return PrepareSettings((str(corpus_file),), "nano", tmp_path / "set", vocab_size=300)


def stories_of(stream: TokenStream, tokenizer: Tokenizer) -> list[str]:
    ids = stream.ids[:]
    pieces = np.split(ids, np.flatnonzero(ids == tokenizer.end_of_text))[1:]
    return [tokenizer.decode(piece.tolist()) for piece in pieces]


def test_both_sides_hold_the_stories_and_the_record_their_counts(
    plan: PrepareSettings, stories: list[str], corpus_file: Path
) -> None:
    dataset = prepare(replace(plan, licence="CC0"), QUIET)
    assert stories_of(dataset.train, dataset.tokenizer) == [story for story in stories if not is_held_out(story)]
    assert stories_of(dataset.valid, dataset.tokenizer) == [story for story in stories if is_held_out(story)]
    record = dataset.record
    assert record["licence"] == "CC0"
    assert record["sources"] == [
        {
            "split": "train",
            "file": "stories.txt",
            "kind": "text",
            "bytes": corpus_file.stat().st_size,
            "separator": "endoftext",
            "sha256": sha256_of(corpus_file),
        }
    ]
    for side, stream in (("train", dataset.train), ("valid", dataset.valid)):
        entry = record["splits"][side]
        assert (entry["stories"], entry["tokens"], entry["text_bytes"]) == (
            stream.stories,
            len(stream.ids),
            stream.text_bytes,
        )
        assert entry["bytes_per_token"] == pytest.approx(stream.bytes_per_token, abs=1e-4)
    assert dataset.train.text_bytes + dataset.valid.text_bytes == sum(len(story.encode()) for story in stories)
    on_disk = {path.name for path in plan.out.iterdir()}
    assert on_disk == {"dataset.json", *record["files"]}
    for name, file in record["files"].items():
        assert (file["bytes"], file["sha256"]) == ((plan.out / name).stat().st_size, sha256_of(plan.out / name))


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


def test_a_story_never_moves_sides(plan: PrepareSettings, stories: list[str], tmp_path: Path) -> None:
    few, many = tmp_path / "few.txt", tmp_path / "many.txt"
    few.write_text(as_corpus(stories[:150]), "utf-8")
    shuffled = stories + stories[:20]
    random.Random(1).shuffle(shuffled)
    many.write_text(as_corpus(shuffled), "utf-8")
    sides = {}
    for name, path in (("few", few), ("many", many)):
        dataset = prepare(replace(plan, sources=(str(path),), out=tmp_path / name, preset="nano"), QUIET)
        sides[name] = [set(stories_of(side, dataset.tokenizer)) for side in (dataset.train, dataset.valid)]
        assert not sides[name][0] & sides[name][1]
    assert sides["few"][0] < sides["many"][0]
    assert sides["few"][1] < sides["many"][1]
    assert (
        prepare(replace(plan, sources=(str(many),), out=tmp_path / "many"), QUIET).record["cleaning"]["train"][
            "duplicates"
        ]
        == 20
    )


def test_a_validation_source_is_the_side_and_is_not_trained_on(
    plan: PrepareSettings, stories: list[str], tmp_path: Path
) -> None:
    valid = tmp_path / "valid.txt"
    broken_off = "He saw a dog. He"
    valid.write_text(as_corpus([*stories[:30], broken_off]), "utf-8")
    dataset = prepare(replace(plan, valid=(str(valid),)), QUIET)
    assert stories_of(dataset.valid, dataset.tokenizer) == [*stories[:30], broken_off]
    assert stories_of(dataset.train, dataset.tokenizer) == stories[30:]
    assert dataset.record["cleaning"]["train"]["in_validation"] == 30
    assert [source["split"] for source in dataset.record["sources"]] == ["train", "valid"]


def test_the_same_again_does_nothing(plan: PrepareSettings) -> None:
    prepare(plan, QUIET)
    before = {path: path.stat().st_mtime_ns for path in plan.out.iterdir()}
    console = Console(file=io.StringIO(), record=True, width=200)
    prepare(plan, console)
    assert "up to date" in console.export_text()
    assert {path: path.stat().st_mtime_ns for path in plan.out.iterdir()} == before


def test_another_request_is_refused_and_force_replaces(
    plan: PrepareSettings, corpus_file: Path, tmp_path: Path, stories: list[str]
) -> None:
    prepare(plan, QUIET)
    other = tmp_path / "stories.txt"
    other.write_text(as_corpus(stories[:200]), "utf-8")
    changed = {
        "made with other sources; choose": replace(plan, sources=(str(other),)),
        "made with other vocab_size; choose": replace(plan, vocab_size=320),
        "made with other sources, licence, clean; choose": replace(
            plan, sources=(str(other),), licence="MIT", clean=False
        ),
    }
    before = sha256_of(plan.out / "dataset.json")
    for said, request in changed.items():
        with pytest.raises(SlmxError, match=said):
            prepare(request, QUIET)
    assert sha256_of(plan.out / "dataset.json") == before
    dataset = prepare(replace(plan, vocab_size=320, force=True), QUIET)
    assert dataset.tokenizer.vocab_size == 320


def test_a_folder_of_something_else_is_never_replaced(plan: PrepareSettings) -> None:
    plan.out.mkdir()
    (plan.out / "thesis.txt").write_text("years of work")
    for force in (False, True):
        with pytest.raises(SlmxError, match=r"thesis\.txt was not made by slmx"):
            prepare(replace(plan, force=force), QUIET)
    assert (plan.out / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("changed", r"train-00000\.npy: changed since dataset\.json was written; prepare it again with --force"),
        ("truncated", r"train-00000\.npy: changed since"),
        ("missing", r"train-00000\.npy: missing from the data set; prepare it again with --force"),
        ("tokenizer", r"tokenizer\.json: changed since"),
        ("version", "data set format 3, this slmx reads up to 2; prepare it again"),
        ("nonsense", "not a data set of slmx prepare"),
        ("gone", r"cannot read the data set \(No such file"),
    ],
)
def test_a_damaged_data_set_is_named(plan: PrepareSettings, damage: str, said: str) -> None:
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
    else:
        record.unlink()
    with pytest.raises(SlmxError, match=said):
        Dataset.open(plan.out)


KILLED = """
import time
from pathlib import Path
import slm.data.prepare

encode = slm.data.prepare.encode_stories


def slow(*args):
    Path("encoding").touch()
    time.sleep(60)
    return encode(*args)


slm.data.prepare.encode_stories = slow
from slm.cli import main
main()
"""


def test_a_killed_run_publishes_nothing_and_the_next_one_clears_up(plan: PrepareSettings, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, "prepare", plan.sources[0], "--vocab-size", "300", "--out", str(plan.out)]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as child:
        until = time.monotonic() + 60
        while not (tmp_path / "encoding").exists() and child.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=30)
    assert not plan.out.exists()
    assert list(tmp_path.glob(".slmx-work-set"))
    assert len(prepare(plan, QUIET).train.ids) > 0
    assert not list(tmp_path.glob(".slmx-work-set"))


def test_a_full_disk_publishes_nothing(plan: PrepareSettings) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(SlmxError, match=r"cannot write \(File too large\); nothing was changed there"):
            prepare(plan, QUIET)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not plan.out.exists()


def test_a_text_that_cannot_fill_the_vocabulary_says_so(plan: PrepareSettings) -> None:
    console = Console(file=io.StringIO(), record=True, width=200)
    dataset = prepare(replace(plan, vocab_size=None), console)
    assert dataset.tokenizer.vocab_size < 8000
    said = f"the text fills only {dataset.tokenizer.vocab_size:,} of 8,000 tokens: the model gets as many"
    assert said in console.export_text()
    assert dataset.record["vocab_size"] == dataset.tokenizer.vocab_size


def test_the_vocabulary_is_learned_from_a_share_of_a_large_text(
    plan: PrepareSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare(plan, QUIET)
    monkeypatch.setattr("slm.data.prepare.TOKENIZER_BYTES", whole.train.text_bytes // 4 + 1)
    console = Console(file=io.StringIO(), record=True, width=200)
    part = prepare(replace(plan, out=plan.out.with_name("part")), console)
    assert "from one story in 4" in console.export_text()
    assert part.train.text_bytes == whole.train.text_bytes
    assert part.tokenizer.ranks != whole.tokenizer.ranks


def test_a_tokenizer_can_be_taken_from_elsewhere(plan: PrepareSettings, tiny_checkpoint: Path) -> None:
    dataset = prepare(replace(plan, vocab_size=None, tokenizer=tiny_checkpoint), QUIET)
    assert dataset.tokenizer.ranks == load_checkpoint(tiny_checkpoint).tokenizer.ranks
    again = replace(plan, vocab_size=None, tokenizer=plan.out, out=plan.out.with_name("again"))
    assert prepare(again, QUIET).tokenizer.ranks == dataset.tokenizer.ranks
    assert prepare(again, QUIET).merges == load_checkpoint(tiny_checkpoint).merges


def test_sides_that_are_too_small_are_refused(plan: PrepareSettings, tmp_path: Path, stories: list[str]) -> None:
    trained = [story for story in stories if not is_held_out(story)]
    held = [story for story in stories if is_held_out(story)]
    path = tmp_path / "some.txt"
    for content, said in (
        (trained[:40], "no story for validation: 40 stories are too few to hold one in 20 out; give some with --valid"),
        (held[:3], "no story to train on"),
        (
            [*trained, held[0]],
            "the valid split is .* shorter than one context of 256: .*, or name a source with --valid",
        ),
    ):
        path.write_text(as_corpus(content), "utf-8")
        with pytest.raises(SlmxError, match=said):
            prepare(replace(plan, sources=(str(path),)), QUIET)
        assert not plan.out.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--preset", "huge"], "slmx: unknown preset 'huge'"),
        (["--vocab-size", "20"], "slmx: --vocab-size 20 is out of range; it is 257 to 65536"),
        (["--vocab-size", "300", "--tokenizer", "."], "exclude each other"),
        (["--separator", "comma"], "slmx: --separator comma: choose one of"),
        (["--tokenizer", "nowhere"], "slmx: nowhere"),
    ],
)
def test_unusable_options_are_one_line(options: list[str], said: str, corpus_file: Path, tmp_path: Path) -> None:
    ran = run_slmx("prepare", corpus_file, "--out", tmp_path / "set", *options, cwd=tmp_path)
    assert ran.returncode == 1
    assert ran.stdout == ""
    line = ran.stderr.splitlines()[-1]
    assert line.startswith("slmx: ")
    assert said in line
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "set").exists()


def test_the_command_prints_the_folder_and_tells_what_it_did(corpus_file: Path, tmp_path: Path) -> None:
    ran = run_slmx("prepare", corpus_file, "--out", "set", "--vocab-size", "300", "--licence", "CC0", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "set\n"
    assert "300 stories, 300 kept; dropped: 0 empty, 0 truncated, 0 duplicates, 0 in validation" in ran.stderr
    assert Dataset.open(tmp_path / "set").record["licence"] == "CC0"
