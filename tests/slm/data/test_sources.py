"""Stories from every kind of source, and how the kind of a source is found."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from slm.console.errors import SlmxError, UsageError
from slm.data.cleaning import Cleaning
from slm.data.sources import find_sources, read_stories
from slm.tokenizers.settings import END_OF_TEXT
from tests.conftest import as_corpus, run_slmx
from tests.slm.data.conftest import write

FORMATS = ("txt", "jsonl", "ndjson", "json", "csv", "tsv")
PACKINGS = (".gz", ".bz2", ".xz", ".zst")


@pytest.mark.parametrize(
    "suffix", [*FORMATS, "parquet", *(format_ + packing for format_ in FORMATS for packing in PACKINGS), "JSONL", "Csv"]
)
def test_every_kind_of_file_holds_the_same_stories(suffix: str, stories: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / f"stories.{suffix.lower()}", stories[:40])
    path = path.rename(tmp_path / f"stories.{suffix}")
    assert list(read_stories([path])) == stories[:40]
    assert list(read_stories([str(path), path])) == stories[:40] * 2


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("name", ["a.txt", "a.dat", "a", "a.md", "a.data.bak"])
def test_a_table_is_one_whatever_its_name(kind: str, name: str, stories: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{kind}", stories[:5]).rename(tmp_path / name)
    assert list(read_stories([path])) == stories[:5]


@pytest.mark.parametrize("text", ["{he said} no.", '"Once": a story.', "[Scene 1]\nTom: hi.", '{"broken', "[1] One."])
def test_a_text_that_looks_a_little_like_json_is_text(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(text, "utf-8")
    assert list(read_stories([tmp_path / "a.txt"])) == [text]


def test_a_folder_is_all_its_files_in_order(stories: list[str], tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path / "a.txt", stories[:5])
    write(tmp_path / "b.jsonl", stories[5:9])
    write(tmp_path / "deep" / "c.parquet", stories[9:12])
    (tmp_path / "notes.pdf").write_bytes(b"%PDF")
    assert list(read_stories([tmp_path])) == stories[:12]
    (tmp_path / "empty").mkdir()
    with pytest.raises(SlmxError, match=r"empty: no corpus in this folder \(looked for \.txt.*\.parquet\)"):
        list(read_stories([tmp_path / "empty"]))


HUB_CLONE = (
    ".gitattributes",
    ".git/config.txt",
    ".cache/old.jsonl",
    "README.md",
    "LICENSE",
    "LICENSE.txt",
    "CITATION.cff",
    "dataset_infos.json",
    "requirements.txt",
    "stories.py",
)
TRAINING = ("data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl", "extra.txt")
HELD_OUT = (
    "data/validation-00000-of-00001.jsonl",
    "data/test.txt",
    "valid.txt",
    "Stories-Valid.txt.gz",
    "dev/a.txt",
    "valid2.csv",
)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The folder of a git clone of a data set on the hub. The only story of each file is its name."""
    folder = tmp_path / "clone"
    for name in (*HUB_CLONE, *TRAINING, *HELD_OUT):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, [name])
    return folder


def test_a_cloned_data_set_gives_its_training_files_to_training(clone: Path) -> None:
    lines: list[str] = []
    assert list(read_stories(find_sources([clone], split="train", log=lines.append))) == sorted(TRAINING)
    (line,) = lines
    assert line.startswith(
        f"{clone}: left out CITATION.cff, LICENSE, LICENSE.txt, README.md, dataset_infos.json and 2 "
    )
    assert "(no stories by name) and Stories-Valid.txt.gz, data/test.txt, " in line
    assert line.endswith(" and 1 more (valid data by name; give it with --valid to use it)")


def test_a_cloned_data_set_gives_its_other_files_to_validation(clone: Path) -> None:
    lines: list[str] = []
    expected = sorted([*HELD_OUT, "extra.txt"])
    assert list(read_stories(find_sources([clone], split="valid", log=lines.append))) == expected
    assert "data/train-00001-of-00002.jsonl (train data by name" in lines[0]
    assert list(read_stories([clone])) == sorted([*TRAINING, *HELD_OUT])


def test_a_file_that_is_named_is_read_whatever_its_name(clone: Path) -> None:
    for name in ("README.md", "valid.txt", "data/test.txt", ".cache/old.jsonl"):
        assert list(read_stories(find_sources([clone / name], split="train"))) == [name]


@pytest.mark.parametrize(
    "name", ["The Test of Time.txt", "contest.txt", "invalid.txt", "evaluations.txt", "valley.txt", "readmes.txt"]
)
def test_a_story_by_such_a_word_is_a_story(name: str, tmp_path: Path) -> None:
    write(tmp_path / name, ["one"])
    assert list(read_stories(find_sources([tmp_path], split="train"))) == ["one"]


def test_a_folder_whose_files_are_all_left_out_says_which(tmp_path: Path) -> None:
    write(tmp_path / "test.txt", ["one"])
    with pytest.raises(SlmxError, match=r"no corpus .*; left out test\.txt \(valid data by name; give it with --valid"):
        find_sources([tmp_path], split="train")


def test_a_prepared_data_set_is_no_corpus(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{}", "utf-8")
    with pytest.raises(SlmxError, match="a prepared data set, not a text of stories; give it to slmx train or"):
        find_sources([tmp_path])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dataset.json", "{}", "a prepared data set, not a text of stories; give it to slmx train or"),
        ("run.json", '{"data": "data"}', "a training run, not a text of stories; "),
    ],
)
def test_a_folder_around_one_of_ours_is_no_corpus_and_the_line_says_which(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    write(tmp_path / "a.txt", ["one"])
    inside = tmp_path / "deep" / "inside"
    inside.mkdir(parents=True)
    (inside / name).write_text(content, "utf-8")
    with pytest.raises(SlmxError, match=f"^{re.escape(str(inside))}: {message}"):
        find_sources([tmp_path])


def test_the_separator_is_found_and_can_be_forced(tmp_path: Path) -> None:
    marked, blank = tmp_path / "marked.txt", tmp_path / "blank.txt"
    marked.write_text(f"one\n\nstill one\n{END_OF_TEXT}\ntwo{END_OF_TEXT}three{END_OF_TEXT}\n", "utf-8")
    blank.write_text("one\nmore\n\n\n \ntwo\r\nmore\r\n\r\nthree", "utf-8", newline="")
    assert [source.separator for source in find_sources([marked, blank])] == ["endoftext", "blank"]
    assert list(read_stories([marked])) == ["one\n\nstill one", "two", "three"]
    assert list(read_stories([blank])) == ["one\nmore", "two\nmore", "three"]
    assert list(read_stories(find_sources([marked], "blank"))) == ["one", "still one", "two", "three"]
    assert list(read_stories(find_sources([blank], "endoftext"))) == ["one\nmore\n\n\n \ntwo\nmore\n\nthree"]
    with pytest.raises(SlmxError, match="unknown separator 'comma': choose one of auto, endoftext, blank"):
        find_sources([marked], "comma")


def test_a_marker_across_two_reads_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"one\n\nmore\n{END_OF_TEXT}\ntwo é\n", "utf-8")
    for size in range(1, 30):
        monkeypatch.setattr("slm.data.files.CHUNK", size)
        assert find_sources([path])[0].separator == "endoftext"
        assert list(read_stories([path])) == ["one\n\nmore", "two é"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", None, "cannot read the text (No such file or directory)"),
        ("a.jsonl", None, "cannot read the text (No such file or directory)"),
        ("no [file] 50%", None, "cannot read the text (No such file or directory)"),
        ("a.txt", b"", "holds no story, only white space or nothing; give a text of stories, "),
        ("a.txt", b"<|endoftext|>\n \n", "holds no story"),
        ("a.txt.gz", b"no archive", "cannot read the text ("),
        ("a.txt.zst", b"no archive", "a damaged archive ("),
    ],
)
def test_unusable_files_are_named_in_one_line(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SlmxError) as caught:
        list(read_stories([path]))
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_an_empty_name_is_wrong_usage_and_a_path_is_no_name_on_the_hub() -> None:
    with pytest.raises(UsageError, match="the name of a text is empty"):
        find_sources([""])
    with pytest.raises(SlmxError, match=r"^tales: cannot read the text"):
        find_sources(["./tales"])


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero"])
def test_a_device_is_refused(device: str) -> None:
    with pytest.raises(SlmxError, match=f"^{device}: neither a file, a folder nor a pipe; check the path$"):
        find_sources([device])


def test_another_column_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"story": "once", "id": 1}\n', "utf-8")
    assert list(read_stories([path], field="story")) == ["once"]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"one\n{END_OF_TEXT}\n", "utf-8-sig")
    assert list(read_stories([tmp_path / "a.txt"])) == ["one"]
    (tmp_path / "a.jsonl").write_text('{"text": "one"}', "utf-8-sig")
    assert list(read_stories([tmp_path / "a.jsonl"])) == ["one"]
    (tmp_path / "a").write_text('{"text": "one"}', "utf-8-sig")
    assert list(read_stories([tmp_path / "a"])) == ["one"]


def test_cuts_of_long_stories_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slm.data.stories.LONGEST_STORY", 20)
    for name in ("a.txt", "a.jsonl"):
        counts = Cleaning()
        path = write(tmp_path / name, ["Once upon a time. They lived happily. The end."])
        assert list(read_stories([path], counts=counts)) == ["Once upon a time.", "They lived happily.", "The end."]
        assert counts.cut == 2


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["txt", "jsonl", "parquet"])
def test_a_pipe_is_read_as_a_file(kind: str, packed: bool, stories: list[str], tmp_path: Path) -> None:
    content = write(tmp_path / f"a.{kind}", stories[:20]).read_bytes()
    if packed and kind != "parquet":
        content = gzip.compress(content, mtime=0)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=[content])
    writer.start()
    assert list(read_stories([str(pipe)])) == stories[:20]
    writer.join(timeout=30)


def test_what_a_pipe_holds_is_named_by_the_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=[b"one\ntwo \xff"])
    writer.start()
    with pytest.raises(SlmxError) as caught:
        list(read_stories([pipe]))
    writer.join(timeout=30)
    assert str(caught.value).startswith(f"{pipe}:2: not UTF-8")


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_standard_input_is_a_source(name: str, stories: list[str]) -> None:
    code = f"import json; from slm.data.sources import read_stories; print(json.dumps(list(read_stories([{name!r}]))))"
    ran = subprocess.run(
        [sys.executable, "-c", code], input=as_corpus(stories[:9]).encode(), capture_output=True, check=True, timeout=60
    )
    assert json.loads(ran.stdout) == stories[:9]


def test_a_name_of_a_hub_data_set_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [source.kind for source in find_sources(["roneneldan/TinyStories", "a/b:validation"])] == ["hub", "hub"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "stories").mkdir()
    (tmp_path / "mine" / "stories" / "a.txt").write_text("one", "utf-8")
    assert [source.kind for source in find_sources(["mine/stories"])] == ["text"]
    for given, said in {
        "mine/storys": r"storys: no such file or folder \(did you mean mine/stories\?\); hub:mine/storys is the name",
        "mein/stories": r"did you mean mine/stories\?",
        "mine/xyz": "mine/xyz: no such file or folder; check the path; hub:mine/xyz is the name on the hub",
    }.items():
        with pytest.raises(SlmxError, match=said):
            find_sources([given])
    (source,) = find_sources(["hub:mine/storys:train"])
    assert (source.kind, source.name) == ("hub", "mine/storys:train")


@pytest.mark.slow
def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    ran = run_slmx(
        "prepare",
        "nobody/nothing-of-the-kind",
        "--out",
        tmp_path / "set",
        cwd=tmp_path,
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
    )
    assert ran.returncode == 1
    assert ran.stdout == ""
    line = ran.stderr.splitlines()[-1]
    assert line.startswith("slmx: nobody/nothing-of-the-kind: cannot read the text (")
    assert line.endswith("; check the name and the connection, or give a file")
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "set").exists()
