"""One file of a corpus as bytes and as text, packed or not, with any name."""

from __future__ import annotations

import gzip
import os
import threading
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slm.console.errors import SlmxError
from slm.data import files
from slm.data.files import COMPRESSIONS, compression_of, copy_stream, join_lines, read_bytes, read_head, read_text
from slm.data.sources import read_stories
from slm.data.stories import LONGEST_STORY
from tests.slm.data.conftest import compress

NAMES = [
    "my stories.txt",
    "Zoë.txt",
    "50%.txt",
    "50%20.txt",
    "a#b.txt",
    "a[1].txt",
    "what?.txt",
    "*.txt",
    "~.txt",
    "+:&.txt",
]


@pytest.mark.parametrize("name", [*NAMES, *(f"{name}.gz" for name in NAMES)])
def test_a_name_is_only_a_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress("Zoë.".encode()) if name.endswith("gz") else "Zoë.".encode())
    (tmp_path / "a1.txt").write_text("another", "utf-8")
    assert list(read_stories([str(path)])) == ["Zoë."]


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_packed_content_is_unpacked_by_name_and_by_content(suffix: str, tmp_path: Path) -> None:
    content = os.urandom(files.CHUNK + 100) + b"end"
    half = len(content) // 2
    packed = compress(content[:half], suffix) + compress(content[half:], suffix)
    for name in (f"a.txt{suffix}", f"a.txt{suffix.upper()}", "a.txt", "a"):
        path = tmp_path / name
        path.write_bytes(packed)
        assert compression_of(path) == suffix
        assert b"".join(read_bytes(path, name)) == content


@pytest.mark.parametrize("suffix", COMPRESSIONS)
@pytest.mark.parametrize("damage", ["torn", "torn at the end", "no archive"])
def test_a_damaged_archive_is_named(suffix: str, damage: str, tmp_path: Path) -> None:
    packed = compress(os.urandom(100_000), suffix)
    content = {"torn": packed[:50_000], "torn at the end": packed[:-1], "no archive": b"no archive"}[damage]
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(content)
    with pytest.raises(
        SlmxError, match=r"^a name: (a damaged archive|cannot read the text) \(.+\); (copy it again|check the file)$"
    ):
        list(read_bytes(path, "a name"))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.sampled_from("aé字\U0001f600\n\r \u2028\x85\ufeff"), max_size=40),
    mark=st.booleans(),
    size=st.integers(1, 9),
)
def test_text_read_in_any_blocks_is_the_text(text: str, mark: bool, size: int, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode("utf-8-sig" if mark else "utf-8"))
    expected = (text if mark else text.removeprefix("\ufeff")).replace("\r\n", "\n").replace("\r", "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "CHUNK", size)
        assert "".join(read_text(path, "a")) == expected
        lines = list(join_lines(read_text(path, "a")))
    assert "".join(lines) == expected
    assert [line.rstrip("\n") for line in lines] == (expected + "\n").split("\n")[: len(lines)]
    assert all(line.endswith("\n") for line in lines[:-1])


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 1 << 20])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one\ntwo\n\xff\xfe\n", "a:3: not UTF-8; convert it, for example with iconv -f WINDOWS-1252 -t UTF-8 FILE"),
        (b"one\r\ntwo\r\nthree \xe9", "a:3: not UTF-8"),
        (b"one\n\xc3", "a:2: not UTF-8"),
        (b"one\n\ntwo \0 three\nfour", "a:3: a binary file, not text; give UTF-8 text"),
    ],
)
def test_the_line_that_is_no_text_is_named(
    content: bytes, message: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "CHUNK", size)
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(SlmxError, match=f"^{message}"):
        list(read_text(tmp_path / "a", "a"))


def test_a_program_is_binary_and_no_text_of_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"\x7fELF\x02\x01\x01\0\xff\xfe")
    with pytest.raises(SlmxError, match=r"^a:1: a binary file, not text; give UTF-8 text"):
        list(read_text(path, "a"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hello".encode("utf-16"), "UTF-16 text; convert it with iconv -f UTF-16 -t UTF-8 FILE > NEW"),
        ("hello".encode("utf-32"), "UTF-32 text; convert it with iconv -f UTF-32 -t UTF-8 FILE > NEW"),
        (b"PK\x03\x04\x14\x00", "a zip archive, as .docx, .xlsx and .epub are too; unpack it"),
        (b"7z\xbc\xaf\x27\x1c\x00", "a 7z archive; unpack it"),
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF; save its text as UTF-8"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html><html>", "an HTML page; save its text"),
        (b"<HTML><p>Once", "an HTML page; save its text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer to the file, not the file"),
        (b"a.txt".ljust(257, b"\0") + b"ustar\x0000", "a tar archive; unpack it"),
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet", "a"])
def test_what_is_neither_text_nor_table_is_refused_with_what_to_do(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    for written in (content, gzip.compress(content, mtime=0)):
        path.write_bytes(written)
        with pytest.raises(SlmxError) as caught:
            read_head(path, name)
        assert str(caught.value).startswith(f"{name}: {message}")
        with pytest.raises(SlmxError) as caught:
            list(read_stories([path]))
        assert str(caught.value).startswith(f"{path}: {message}")


@pytest.mark.slow
@pytest.mark.parametrize("text", ["once upon a time. ", "a", " "])
def test_a_text_without_line_ends_takes_bounded_memory(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(text * (24 * 2**20 // len(text)) + "the end.", "utf-8")
    tracemalloc.start()
    try:
        letters = longest = 0
        for story in read_stories([path]):
            letters += len(story)
            longest = max(longest, len(story))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert longest <= LONGEST_STORY
    assert letters > (1 if text == " " else 20 * 2**20)
    assert peak < 16 * 2**20


def test_a_pipe_is_copied_and_the_copy_goes_away(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = os.urandom(200_000)
    writer = threading.Thread(target=pipe.write_bytes, args=[content])
    writer.start()
    copy = copy_stream(str(pipe))
    writer.join(timeout=30)
    path = Path(copy.name)
    assert path.read_bytes() == content
    del copy
    assert not path.exists()


def test_a_stream_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SlmxError, match=r"nowhere: cannot copy the stream to a temporary file \(No such file"):
        copy_stream(str(tmp_path / "nowhere"))
