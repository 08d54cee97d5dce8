"""A hostile archive is refused in one line, before anything of it is written, and a harmless one is read."""

from __future__ import annotations

import stat
import struct
import subprocess
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from runtimes.bundle.archive import CHUNK, MAX_ENTRIES, ZipStore
from runtimes.bundle.store import Bundle
from slm.console.errors import SlmxError
from tests import bundles
from tests.bundles import Slmx
from tests.runtimes.bundle.zips import REGULAR, Entry, entries_of, zip_of

Change = Callable[[list[Entry]], bytes]
NAME = "a é 100% #1.slmx"
EXTRA = Entry(b"extra.txt", b"extra")
ZIP64 = struct.pack("<2HQ", 1, 8, 5)
UNICODE_PATH = struct.pack("<2HBL", 0x7075, 5 + 9, 1, zlib.crc32(b"extra.txt")) + b"../../x.y"


@pytest.fixture
def bundle(tiny_checkpoint: Path) -> Path:
    return bundles.tiny_bundle(tiny_checkpoint)


def with_(entries: Sequence[Entry], number: int, **changes: object) -> list[Entry]:
    """Entries of which one is changed."""
    return [replace(entry, **changes) if at == number else entry for at, entry in enumerate(entries)]  # type: ignore[arg-type]


def added(**changes: object) -> Change:
    """An archive with one more entry."""
    return lambda entries: zip_of([*entries, replace(EXTRA, **changes)])  # type: ignore[arg-type]


def changed(number: int, **changes: object) -> Change:
    """An archive with one other entry."""
    return lambda entries: zip_of(with_(entries, number, **changes))


def named(name: bytes) -> Change:
    return added(name=name)


def overlapping(entries: list[Entry]) -> bytes:
    """Two names for the same bytes, as in the bombs of David Fifield: the second is inside the data of the first."""
    inner = b"PK\3\4" + EXTRA.shared() + EXTRA.content
    outer = Entry(b"outer.txt", inner)
    whole = zip_of([*entries, outer])
    start = whole.index(inner)
    directory = b"PK\1\2" + struct.pack("<H", 0x30A) + EXTRA.shared()[:26]
    directory += struct.pack("<3H2L", 0, 0, 0, REGULAR, start) + EXTRA.name
    here, _, length, place = struct.unpack("<2H2L", whole[-14:-2])
    return (
        whole[:-22]
        + directory
        + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, here + 1, here + 1, length + len(directory), place, 0)
    )


def two_directories(entries: list[Entry]) -> bytes:
    """An archive behind an archive: some programs read the first, others the last."""
    return zip_of([EXTRA]) + zip_of(entries)


def hidden_directory(entries: list[Entry]) -> bytes:
    """An archive inside the comment of another one."""
    return zip_of([EXTRA], comment=zip_of(entries[:1]))


PATHS = {
    "absolute": b"/etc/passwd",
    "above": b"../outside.txt",
    "above inside": b"onnx/../../outside.txt",
    "here": b"./extra.txt",
    "backslash": b"onnx\\..\\..\\outside.txt",
    "drive": b"C:outside.txt",
    "drive and root": b"C:/outside.txt",
    "share": b"//server/share",
    "device": b"CON",
    "device with an ending": b"nul.txt",
    "device as a folder": b"com1/extra.txt",
    "dot at the end": b"extra.",
    "space at the end": b"extra ",
    "space before": b" extra",
    "hidden": b".bashrc",
    "empty": b"",
    "empty part": b"onnx//extra",
    "only a slash": b"/",
    "NUL": b"README.md\0.txt",
    "control": b"\x1b[31mred",
    "stream": b"README.md:stream",
    "accent": "caf\u00e9".encode(),
    "accent in another normal form": "cafe\u0301".encode(),
    "look-alike": "README\uff0emd".encode(),
    "cp437": b"caf\x82",
    "long": b"a" * 101,
    "long path": b"/".join([b"a" * 60] * 5),
    "of Finder": b"__MACOSX/._README.md",
}
LINK, PIPE, SOCKET = (kind << 16 for kind in (stat.S_IFLNK | 0o777, stat.S_IFIFO, stat.S_IFSOCK))
STRAY = "there are other bytes before, after or between its files"
TWO_WAYS = "is described in two ways, or there are other bytes before it"
ATTACKS: dict[str, tuple[str, Change]] = {
    **{f"path: {kind}": ("is not a plain path below the bundle", named(name)) for kind, name in PATHS.items()},
    "a folder with such a path": ("is not a plain path below the bundle", named(b"../outside/")),
    "the same name": ("'README.md' is in it twice", named(b"README.md")),
    "the name in another case": ("'ReadMe.MD' is in it twice", named(b"ReadMe.MD")),
    "two manifests": ("'manifest.json' is in it twice", named(b"manifest.json")),
    "a folder with the name of a file": (
        "'README.md/' is in it twice",
        added(name=b"README.md/", content=b"", attributes=0x10),
    ),
    "a link": ("README.md is a link or", changed(1, attributes=LINK, content=b"/etc/passwd")),
    "a link by the attributes of Windows": ("README.md is a link or", changed(1, attributes=REGULAR | 0x400)),
    "a pipe": ("README.md is a link or", changed(1, attributes=PIPE)),
    "a socket": ("README.md is a link or", changed(1, attributes=SOCKET)),
    "a device": ("README.md is a link or", changed(1, attributes=stat.S_IFBLK << 16)),
    "a volume": ("README.md is a link or", changed(1, attributes=0x08)),
    "a file that is a folder": ("README.md is a link or", changed(1, attributes=stat.S_IFDIR << 16)),
    "a file that is a folder in DOS": ("README.md is a link or", changed(1, attributes=0x10)),
    "a folder that is a file": ("sub/ is a link or", added(name=b"sub/", content=b"", attributes=REGULAR)),
    "a folder with content": ("sub/ has two sizes", added(name=b"sub/", attributes=0x10)),
    "encrypted": ("README.md is encrypted", changed(1, flags=1)),
    "strongly encrypted": ("README.md is encrypted", changed(1, flags=0x41)),
    "with an encrypted directory": ("README.md is encrypted", changed(1, flags=0x2000)),
    "streamed": ("README.md is packed in a way", changed(1, flags=8)),
    "patched": ("README.md is packed in a way", changed(1, flags=0x20)),
    "lzma": ("README.md is packed in a way", changed(1, method=14)),
    "zip64": ("extra.txt has extra fields or a comment", added(extra=ZIP64, size=2**32 - 1)),
    "a second name": ("extra.txt has extra fields or a comment", added(extra=UNICODE_PATH)),
    "a comment of an entry": ("README.md has extra fields or a comment", changed(1, comment=b"PK\5\6")),
    "on another disk": ("README.md has extra fields or a comment", changed(1, disk=1)),
    "stored in two sizes": ("README.md has two sizes", changed(1, size=5)),
    "another name before the data": (f"'README.md' {TWO_WAYS}", changed(1, local={"name": b"../x.mdxx"})),
    "another size before the data": (f"'README.md' {TWO_WAYS}", changed(1, local={"size": 7})),
    "another CRC before the data": (f"'README.md' {TWO_WAYS}", changed(1, local={"crc": 7})),
    "another method before the data": (f"'README.md' {TWO_WAYS}", changed(1, local={"method": 8})),
    "encrypted before the data": (f"'README.md' {TWO_WAYS}", changed(1, local={"flags": 1})),
    "extra fields before the data": (f"'README.md' {TWO_WAYS}", changed(1, local={"extra": UNICODE_PATH})),
    "bytes between entries": (STRAY, changed(1, before=b"x", offset=None)),
    "an entry that nothing names": (STRAY, changed(1, before=b"PK\3\4" + EXTRA.shared() + EXTRA.content)),
    "bytes before the directory": (STRAY, lambda entries: zip_of(entries, gap=b"x")),
    "prepended": (STRAY, lambda entries: b"#!/bin/sh\n" + zip_of(entries)),
    "prepended, with right places": (STRAY, lambda entries: zip_of(entries, before=b"#!/bin/sh\n")),
    "appended": ("it does not end as one", lambda entries: zip_of(entries, after=b"x")),
    "a comment": ("it does not end as one", lambda entries: zip_of(entries, comment=b"PK")),
    "a comment that is stated only": (STRAY, lambda entries: zip_of(entries)[:-2] + b"\5\0"),
    "two directories": (STRAY, two_directories),
    "an archive in a comment": (STRAY, hidden_directory),
    "overlapping": (STRAY, overlapping),
    "two names for one place": (STRAY, added(offset=0)),
    "a place outside": (STRAY, added(offset=2**31)),
    "more entries stated": ("its directory is damaged", lambda entries: zip_of(entries, count=99, here=99)),
    "fewer entries stated": (STRAY, lambda entries: zip_of(entries, count=2, here=2)),
    "none stated": (STRAY, lambda entries: zip_of(entries, count=0, here=0)),
    "on several disks": (STRAY, lambda entries: zip_of(entries, disk=1)),
    "split": (STRAY, lambda entries: zip_of(entries, here=1)),
    "a directory elsewhere": (STRAY, lambda entries: zip_of(entries, start=0)),
    "sizes of zip64": (STRAY, lambda entries: zip_of(entries, start=2**32 - 1, length=2**32 - 1)),
    "too many entries": (
        f"1,010 entries, and a bundle has {MAX_ENTRIES:,} at most",
        lambda entries: zip_of([*entries, *(Entry(b"e%d" % number) for number in range(1000))]),
    ),
    "a bomb": (
        "bytes of files in an archive of",
        added(content=bytes(40_000_000), deflated=True),
    ),
    "a bomb by its stated size": ("bytes of files in an archive of", added(content=b"", deflated=True, size=2**32 - 1)),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_refused_and_nothing_is_written(slmx: Slmx, bundle: Path, tmp_path: Path, attack: str) -> None:
    reason, make = ATTACKS[attack]
    archive = tmp_path / NAME
    archive.write_bytes(make(entries_of(bundle)))
    line = slmx.refuses_unchanged("unpack", archive, "--out", "out")
    assert line.startswith(f"{archive}: ")
    assert line.isprintable()
    assert reason in line
    assert line.endswith("; copy it again, or make one with slmx pack")
    assert slmx.refuses_unchanged("generate", "Once", "--bundle", archive) == line
    assert slmx.refuses_unchanged("verify", archive) == line
    assert sorted(path.name for path in tmp_path.iterdir()) == [NAME]


def test_a_file_that_is_not_listed_is_an_error_for_what_reads_all(slmx: Slmx, bundle: Path, tmp_path: Path) -> None:
    archive = tmp_path / NAME
    archive.write_bytes(added()(entries_of(bundle)))
    line = f"{archive}: 'extra.txt' is not listed in manifest.json; take it out of the bundle"
    assert slmx.refuses_unchanged("unpack", archive) == line
    assert slmx.refuses_unchanged("pack", archive, "--out", "other.slmx") == line
    ran = slmx("verify", archive)
    assert (ran.code, ran.stdout) == (1, f"FAILED: {line}\n")


@pytest.mark.parametrize("name", ["verification.json", "model.sig"])
def test_what_lies_beside_an_archive_is_not_in_it(bundle: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / NAME).write_bytes(added(name=name.encode())(entries_of(bundle)))
    assert Bundle.open(tmp_path / NAME).extra_files() == [name]


def deflated(**changes: object) -> Change:
    return changed(1, deflated=True, **changes)


def packed(content: bytes) -> bytes:
    return Entry(b"", content, deflated=True).stored


@pytest.mark.parametrize(
    "change",
    {
        "cut": lambda entry: {"data": packed(entry.content)[:-3]},
        "longer": lambda entry: {"data": packed(entry.content) + b"x"},
        "with a second stream": lambda entry: {"data": packed(entry.content) + packed(b"x")},
        "of more bytes than stated": lambda entry: {"data": packed(entry.content + bytes(10_000_000))},
        "of fewer bytes than stated": lambda entry: {"data": packed(entry.content[:-1])},
        "no deflate": lambda entry: {"data": b"\xff" * 20},
        "empty": lambda entry: {"data": b""},
        "another CRC": lambda entry: {"crc": 7},
    }.items(),
    ids=lambda item: item[0],
)
def test_damaged_data_of_an_entry_is_one_line(
    bundle: Path, tmp_path: Path, change: tuple[str, Callable[[Entry], dict[str, object]]]
) -> None:
    entries = entries_of(bundle)
    archive = tmp_path / NAME
    archive.write_bytes(deflated(**change[1](entries[1]))(entries))
    opened = Bundle.open(archive)
    tracemalloc.start()
    with pytest.raises(SlmxError) as caught:
        opened.read("README.md")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(caught.value) == f"{archive}:README.md: damaged; copy the archive again, or pack the bundle again"
    assert peak < 10 * len(entries[1].content) + CHUNK, "a bomb is not inflated"
    assert len(opened.problems()) == 1


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_entries_of_every_size_are_read(tmp_path: Path, size: int) -> None:
    content = (bytes(range(251)) * (size // 251 + 1))[:size]
    archive = tmp_path / "a.zip"
    archive.write_bytes(zip_of([Entry(b"stored", content), Entry(b"deflated", content, deflated=True)]))
    store = ZipStore(archive)
    assert store.names() == ["deflated", "stored"]
    for name in store.names():
        assert store.read(name, size) == content
        if size:
            with pytest.raises(SlmxError, match=f"{size:,} bytes, {size - 1:,} at most"):
                store.read(name, size - 1)


def test_a_read_holds_the_file_once(tmp_path: Path) -> None:
    """A model is not in memory twice, as it would be if the archive were read as a whole."""
    content = bytes(range(256)) * 2**16  # 16 MiB
    archive = tmp_path / "a.zip"
    archive.write_bytes(zip_of([Entry(b"stored", content), Entry(b"deflated", content, deflated=True)]))
    store = ZipStore(archive)
    for name, most in (("stored", 1.02), ("deflated", 1.3)):
        tracemalloc.start()
        assert len(store.read(name, len(content))) == len(content)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < most * len(content)


def test_archives_of_other_programs_are_read(bundle: Path, tmp_path: Path) -> None:
    """Python's zipfile and Info-ZIP's `zip -X`, with folders as entries, stored and deflated."""
    made = {}
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        made[f"python {method}"] = tmp_path / f"{method}.zip"
        with zipfile.ZipFile(tmp_path / f"{method}.zip", "w", method) as archive:
            for path in sorted(bundle.rglob("*")):
                archive.write(path, path.relative_to(bundle).as_posix())
    for level in "-0", "-9":
        made[f"zip {level}"] = tmp_path / f"{level}.zip"
        try:
            subprocess.run(["zip", "-q", "-X", "-r", level, tmp_path / f"{level}.zip", "."], cwd=bundle, check=True)
        except FileNotFoundError:  # no zip here
            del made[f"zip {level}"]
    for kind, path in made.items():
        assert Bundle.open(path).problems() == [], kind


def test_a_file_that_changes_after_it_was_opened_is_not_taken_for_what_it_was(bundle: Path, tmp_path: Path) -> None:
    archive = tmp_path / NAME
    archive.write_bytes(zip_of(entries_of(bundle)))
    opened = Bundle.open(archive)
    archive.write_bytes(zip_of(entries_of(bundle)[::-1]))
    with pytest.raises(SlmxError, match="damaged"):
        opened.read("README.md")
    archive.unlink()
    with pytest.raises(SlmxError, match=r"cannot read \(No such file or directory\)"):
        opened.read("README.md")
