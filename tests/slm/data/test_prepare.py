"""From a corpus to a data set: its content, when it is made again, and refusals."""

from __future__ import annotations

import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from slm.console.errors import SlmxError
from slm.data.prepare import MOST_BARS, PrepareSettings, is_held_out, prepare
from slm.data.stories import LONGEST_STORY
from slm.storage.disk import WORK_NAME
from slm.storage.hashing import sha256_of
from slm.storage.locks import lock_folder
from slm.tokenizers.tokenizer import Tokenizer, train_tokenizer
from tests.conftest import as_corpus, run_slmx
from tests.error_lines import said
from tests.runs import QUIET
from tests.slm.data.conftest import stories_of, write

pytestmark = pytest.mark.slow


def test_both_splits_hold_the_stories_and_the_record_their_counts(
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
    for split, stream in (("train", dataset.train), ("valid", dataset.valid)):
        entry = record["splits"][split]
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


def test_a_story_never_moves_to_the_other_split(plan: PrepareSettings, stories: list[str], tmp_path: Path) -> None:
    few, many = tmp_path / "few.txt", tmp_path / "many.txt"
    few.write_text(as_corpus(stories[:150]), "utf-8")
    shuffled = stories + stories[:20]
    random.Random(1).shuffle(shuffled)
    many.write_text(as_corpus(shuffled), "utf-8")
    splits = {}
    for name, path in (("few", few), ("many", many)):
        dataset = prepare(replace(plan, sources=(str(path),), out=tmp_path / name, preset="nano"), QUIET)
        splits[name] = [set(stories_of(split, dataset.tokenizer)) for split in (dataset.train, dataset.valid)]
        assert not splits[name][0] & splits[name][1]
    assert splits["few"][0] < splits["many"][0]
    assert splits["few"][1] < splits["many"][1]
    assert (
        prepare(replace(plan, sources=(str(many),), out=tmp_path / "many"), QUIET).record["cleaning"]["train"][
            "duplicates"
        ]
        == 20
    )


def test_a_validation_source_is_the_split_and_is_not_trained_on(
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


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize(("held", "trained"), [("ZoÃ« slept.", "ZoÃ« slept."), ("ZoÃ« slept.", "Zoë slept.")])
def test_a_validation_story_with_mojibake_is_not_trained_on(
    plan: PrepareSettings, stories: list[str], tmp_path: Path, clean: bool, held: str, trained: str
) -> None:
    valid = write(tmp_path / "valid.txt", [*stories[:30], held])
    text = write(tmp_path / "text.txt", [*stories[30:], trained])
    dataset = prepare(replace(plan, sources=(str(text),), valid=(str(valid),), clean=clean), QUIET)
    assert stories_of(dataset.valid, dataset.tokenizer) == [*stories[:30], held]
    assert stories_of(dataset.train, dataset.tokenizer) == stories[30:]
    assert dataset.record["cleaning"]["train"]["in_validation"] == 1


def test_the_same_again_does_nothing(plan: PrepareSettings, console: Console) -> None:
    prepare(plan, QUIET)
    before = {path: path.stat().st_mtime_ns for path in plan.out.iterdir()}
    left = plan.out.with_name(f"{WORK_NAME}-{plan.out.name}")
    left.mkdir()  # of a kill when it was finished
    prepare(plan, console)
    assert not left.exists()
    assert f"{plan.out}: up to date" in console.export_text()
    assert {path: path.stat().st_mtime_ns for path in plan.out.iterdir()} == before


def test_an_up_to_date_data_set_may_be_read_only(plan: PrepareSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(plan, QUIET)
    monkeypatch.setattr("slm.data.prepare.lock_folder", lambda *_, **__: pytest.fail("locked"))
    prepare(plan, QUIET)


def test_of_two_at_once_the_second_waits_and_finds_it_up_to_date(
    plan: PrepareSettings, console: Console, capfd: pytest.CaptureFixture[str]
) -> None:
    locked = threading.Event()

    def first() -> None:
        with lock_folder(plan.out):
            locked.set()
            time.sleep(0.6)
            prepare(plan, QUIET)

    thread = threading.Thread(target=first)
    thread.start()
    assert locked.wait(30)
    prepare(plan, console)
    thread.join()
    assert f"{plan.out}: process {os.getpid()} is writing it" in capfd.readouterr().err
    assert f"{plan.out}: up to date" in console.export_text()


def test_a_pipe_is_a_source_and_the_same_text_again_does_nothing(
    plan: PrepareSettings, corpus_file: Path, tmp_path: Path, console: Console
) -> None:
    expected = prepare(plan, QUIET)
    for number in range(2):
        pipe = tmp_path / f"pipe{number}"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=[corpus_file.read_bytes()])
        writer.start()
        dataset = prepare(replace(plan, sources=(str(pipe),), out=tmp_path / "piped"), console)
        writer.join(timeout=30)
        np.testing.assert_array_equal(dataset.train.ids[:], expected.train.ids[:])
        assert [source["file"] for source in dataset.record["sources"]] == ["-"]
    assert "up to date" in console.export_text()


def test_a_folder_gives_each_split_its_files_and_reports_the_rest(
    plan: PrepareSettings, stories: list[str], tmp_path: Path, console: Console
) -> None:
    folder = tmp_path / "clone"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: mit\n---\nA data set.", "utf-8")
    write(folder / "train.jsonl", stories[:200])
    write(folder / "valid.jsonl", stories[200:])
    dataset = prepare(replace(plan, sources=(str(folder),), valid=(str(folder),)), console)
    assert stories_of(dataset.train, dataset.tokenizer) == stories[:200]
    assert stories_of(dataset.valid, dataset.tokenizer) == stories[200:]
    shown = console.export_text()
    assert f"{folder}: left out README.md (no stories by name) and valid.jsonl (valid data by name; give it" in shown
    assert f"{folder}: left out README.md (no stories by name) and train.jsonl (train data by name; name it" in shown


def test_a_tokenizer_never_learns_from_an_absurdly_long_word(
    plan: PrepareSettings, stories: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "long.txt"
    path.write_text(as_corpus([*stories, "a" * 1_000_000, "=" * 300_000 + " the end."]), "utf-8")
    lengths: list[int] = []

    def train(texts: Iterable[str], vocab_size: int) -> tuple[Tokenizer, list[tuple[str, str]]]:
        given = list(texts)
        lengths.extend(len(word) for text in given for word in re.findall(r"\w+|\s+|[^\w\s]+", text))
        return train_tokenizer(given, vocab_size)

    monkeypatch.setattr("slm.data.prepare.train_tokenizer", train)
    dataset = prepare(replace(plan, sources=(str(path),)), QUIET)
    assert 1000 < max(lengths) < 10_000
    assert max(map(len, stories_of(dataset.train, dataset.tokenizer))) == LONGEST_STORY


def test_another_request_is_refused_and_force_replaces(
    plan: PrepareSettings, tmp_path: Path, stories: list[str], tiny_checkpoint: Path
) -> None:
    prepare(plan, QUIET)
    other = tmp_path / "other" / "stories.txt"
    other.parent.mkdir()
    other.write_text(as_corpus(stories[:200]), "utf-8")
    changed = {
        "made from other texts; choose": replace(plan, sources=(str(other),)),
        f"made with --vocab-size {plan.vocab_size}; choose": replace(plan, vocab_size=320),
        f"made with --preset nano, with --vocab-size {plan.vocab_size}; choose": replace(
            plan, preset="micro", vocab_size=None
        ),
        "made from other texts, with --licence 'not stated', without --no-clean; choose": replace(
            plan, sources=(str(other),), licence="MIT", clean=False
        ),
        "made with another --separator; choose": replace(plan, separator="blank"),
        "made with another --valid; choose": replace(plan, valid=(str(other),)),
        "without --tokenizer; choose": replace(plan, vocab_size=None, tokenizer=tiny_checkpoint),
    }
    before = sha256_of(plan.out / "dataset.json")
    for message, request in changed.items():
        with pytest.raises(SlmxError, match=message):
            prepare(request, QUIET)
    assert sha256_of(plan.out / "dataset.json") == before
    dataset = prepare(replace(plan, vocab_size=320, force=True), QUIET)
    assert dataset.tokenizer.vocab_size == 320


def test_a_folder_of_something_else_is_never_replaced(plan: PrepareSettings) -> None:
    plan.out.mkdir()
    (plan.out / "thesis.txt").write_text("years of work")
    for force in (False, True):
        with pytest.raises(SlmxError, match=r"holds other files, such as thesis\.txt, and"):
            prepare(replace(plan, force=force), QUIET)
    assert (plan.out / "thesis.txt").read_text() == "years of work"


def test_the_parent_of_a_data_set_is_a_folder_of_other_things(plan: PrepareSettings) -> None:
    prepare(replace(plan, out=plan.out / "data"), QUIET)
    with pytest.raises(SlmxError) as caught:
        prepare(plan, QUIET)
    said = "not empty: it holds other files, such as data/dataset.json, and slmx writes only to a folder of its own"
    assert str(caught.value) == f"{plan.out}: {said}; choose another --out"


KILLED = """
import time
from pathlib import Path
from typing import Any
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


def test_a_text_that_cannot_fill_the_vocabulary_is_reported(plan: PrepareSettings, console: Console) -> None:
    dataset = prepare(replace(plan, vocab_size=None), console)
    assert dataset.tokenizer.vocab_size < 8000
    size = dataset.tokenizer.vocab_size
    line = f"the text is short: its vocabulary has {size:,} tokens, not 8,000, so the model gets smaller"
    assert line in console.export_text()
    assert dataset.record["vocab_size"] == dataset.tokenizer.vocab_size


def test_the_files_of_a_folder_share_a_line_of_progress(
    plan: PrepareSettings, stories: list[str], tmp_path: Path, console: Console
) -> None:
    folder = tmp_path / "texts é"
    folder.mkdir()
    for number in range(MOST_BARS + 1):
        (folder / f"{number}.txt").write_text(as_corpus(stories[20 * number : 20 * number + 20]), "utf-8")
    dataset = prepare(replace(plan, sources=(str(folder),)), console)
    (line,) = (line for line in console.export_text().splitlines() if line.startswith("reading "))
    assert line.startswith(f"reading {MOST_BARS + 1} files ")
    assert f"{20 * (MOST_BARS + 1)} stories" in line
    assert dataset.train.stories + dataset.valid.stories == 20 * (MOST_BARS + 1)


def test_the_vocabulary_is_learned_from_a_share_of_a_large_text(
    plan: PrepareSettings, monkeypatch: pytest.MonkeyPatch, console: Console
) -> None:
    whole = prepare(plan, QUIET)
    monkeypatch.setattr("slm.data.prepare.TOKENIZER_BYTES", whole.train.text_bytes // 4 + 1)
    part = prepare(replace(plan, out=plan.out.with_name("part")), console)
    assert "from one story in 4" in console.export_text()
    assert part.train.text_bytes == whole.train.text_bytes
    assert part.tokenizer != whole.tokenizer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "huge"], "--preset: unknown preset 'huge'"),
        (["--vocab-size", "20"], "--vocab-size 20 is out of range; it is 257 to 65536"),
        (["--vocab-size", "300", "--tokenizer", "."], "exclude each other"),
        (["--separator", "comma"], "--separator: unknown separator 'comma': choose one of auto, endoftext, blank"),
        (["--tokenizer", "nowhere"], "nowhere"),
    ],
)
def test_unusable_options_are_one_line(options: list[str], message: str, corpus_file: Path, tmp_path: Path) -> None:
    ran = run_slmx("prepare", corpus_file, "--out", tmp_path / "set", *options, cwd=tmp_path)
    code = 1 if message == "nowhere" else 2
    assert (ran.returncode, ran.stdout) == (code, "")
    assert message in said(ran.stderr.splitlines()[-1], code)
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "set").exists()
