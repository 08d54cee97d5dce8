"""`slmx pack` and `slmx unpack`: the same bytes for the same bundle, the same files again, and nothing lost."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.bundle.archive import write_archive
from runtimes.bundle.location import SHIPPED_BUNDLES
from runtimes.bundle.manifest import VERIFICATION_FILE
from runtimes.bundle.store import Bundle
from runtimes.pack import packing
from runtimes.pack.packing import pack_bundle, unpack_bundle
from slm.console.errors import SlmxError
from slm.console.install import pip_line
from slm.storage.file_names import MANIFEST_FILE
from slm.storage.hashing import sha256_of
from tests import bundles
from tests.bundles import Slmx, snapshot
from tests.runtimes.bundle.zips import Entry, entries_of, zip_of
from tests.runtimes.pack.synthetic import ALWAYS, synthetic_bundle

NANO = SHIPPED_BUNDLES / "nano"
PART = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,5}", fullmatch=True)
NAMES = st.lists(PART, min_size=1, max_size=3).map(lambda parts: "/".join(["x", *parts]))
CONTENTS = st.dictionaries(NAMES, st.binary(max_size=40), max_size=6)


def pack(bundle: Path, out: Path) -> Path:
    pack_bundle(Bundle.open(bundle), out, replace=False, log=lambda line: None)
    return out


def test_a_bundle_becomes_one_file_and_the_same_folder_again(slmx: Slmx, bundle: Path, tmp_path: Path) -> None:
    ran = slmx("pack", bundle)
    opened = Bundle.open(bundle)
    size = (tmp_path / "a bundle é #1.slmx").stat().st_size
    assert ran.stdout.splitlines() == [
        "a bundle é #1.slmx",
        f"10 files, {size:,} bytes, manifest SHA-256 {opened.manifest_sha256}",
    ]
    assert ran.stderr == "now: slmx generate --bundle 'a bundle é #1.slmx'\n"
    shutil.move(bundle, tmp_path / "original")
    assert slmx("unpack", "a bundle é #1.slmx").stdout == "a bundle é #1\n"
    assert snapshot(bundle) == snapshot(tmp_path / "original")


def test_the_shipped_bundle_is_small(tmp_path: Path) -> None:
    assert pack(NANO, tmp_path / "nano.slmx").stat().st_size < 2_490_000, "with its signature it has less than 2.5 MB"


def test_the_bytes_are_those_of_the_format(bundle: Path, tmp_path: Path) -> None:
    """docs/bundle-format.md describes them; another program, written from this description, makes the same file."""
    archive = pack(bundle, tmp_path / "a.slmx")
    assert archive.read_bytes() == zip_of(entries_of(bundle))
    with zipfile.ZipFile(archive) as opened:
        entries = opened.infolist()
        assert [entry.filename for entry in entries] == [MANIFEST_FILE, *sorted(Bundle.open(bundle).manifest.files)]
        assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
        assert {entry.external_attr >> 16 for entry in entries} == {0o100644}
        assert opened.testzip() is None


def test_time_owner_permissions_and_place_change_nothing(bundle: Path, tmp_path: Path) -> None:
    first = pack(bundle, tmp_path / "a.slmx").read_bytes()
    for path in bundle.rglob("*"):
        os.utime(path, (0, 10**9))
        path.chmod(0o700)
    (bundle / VERIFICATION_FILE).write_text("{}")
    moved = bundle.rename(tmp_path / "elsewhere")
    assert pack(moved, tmp_path / "b.slmx").read_bytes() == first
    assert pack(tmp_path / "a.slmx", tmp_path / "c.slmx").read_bytes() == first, "also from an archive"


@settings(max_examples=25, deadline=None)
@given(contents=CONTENTS, preset=PART)
def test_unpacking_undoes_packing(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, bytes], preset: str
) -> None:
    home = tmp_path_factory.mktemp("any")
    try:
        opened = Bundle.open(synthetic_bundle(home / "b", contents, preset))
    except (SlmxError, OSError):  # a name that is a folder of another one, or differs in its case only
        return
    archive = pack(opened.path, home / "b.slmx")
    assert archive.read_bytes() == zip_of(entries_of(opened.path))
    packed = Bundle.open(archive)
    assert (packed.manifest, packed.problems()) == (opened.manifest, [])
    unpack_bundle(packed, home / "again", replace=False, signature=None)
    assert snapshot(home / "again") == snapshot(home / "b")


def contents_of(archive: Path) -> dict[str, bytes] | None:
    """What slmx reads from an archive; None if it finds anything wrong."""
    try:
        bundle = Bundle.open(archive)
        bundle.check_only_listed_files()
    except SlmxError as error:
        (line,) = str(error).splitlines()
        return None if line else {}
    return {MANIFEST_FILE: bundle.manifest_bytes(), **{name: bundle.read(name) for name in bundle.manifest.files}}


@pytest.mark.slow
def test_a_change_of_any_byte_is_found_or_is_harmless(tmp_path: Path) -> None:
    """Harmless is a byte that changes no name and no content, neither for slmx nor for another program."""
    bundle = synthetic_bundle(tmp_path / "b", {"x/data": b"some data"})
    archive = pack(bundle, tmp_path / "b.slmx")
    content, expected = archive.read_bytes(), contents_of(archive)
    manifest = content.index(b"{"), content.index(b"}\n") + 2
    harmless = set()
    for place in range(len(content)):
        if manifest[0] + 50 < place < manifest[1] - 50 and place % 37:
            continue  # a few places of this text are enough
        for mask in (0x01, 0xFF):
            spoilt = bytearray(content)
            spoilt[place] ^= mask
            archive.write_bytes(spoilt)
            found = contents_of(archive)
            if found is None:
                continue
            assert found == expected
            with zipfile.ZipFile(io.BytesIO(bytes(spoilt))) as opened:
                assert {name: opened.read(name) for name in opened.namelist()} == expected
            harmless.add(place - content.rindex(b"PK\1\2", 0, place + 1))
    assert harmless <= {4, 5, 36, 37, 38, 39, 40, 41}, "the program that made it, a hint of text, and permissions"


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_of_any_kind_is_found_or_is_harmless(
    tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path, data: st.DataObject
) -> None:
    whole = zip_of(entries_of(bundles.tiny_bundle(tiny_checkpoint)))
    start, end = sorted(data.draw(st.integers(0, len(whole))) for _ in range(2))
    spoilt = whole[:start] + data.draw(st.binary(max_size=30)) + whole[end:]
    archive = tmp_path_factory.mktemp("any") / "b.slmx"
    archive.write_bytes(spoilt)
    assert spoilt == whole or contents_of(archive) is None


@settings(max_examples=300, deadline=None)
@given(
    content=st.binary(max_size=200) | st.binary(max_size=100).map(lambda raw: zip_of([Entry(raw[:9], raw)]) + raw[60:])
)
def test_any_bytes_are_one_line(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    archive = tmp_path_factory.mktemp("any") / "b.slmx"
    archive.write_bytes(content)
    assert contents_of(archive) is None


@pytest.mark.parametrize("damage", ["changed", "missing", "extra"])
def test_only_a_whole_bundle_is_packed(slmx: Slmx, bundle: Path, damage: str) -> None:
    if damage == "changed":
        (bundle / "README.md").write_text("another", "utf-8")
    elif damage == "missing":
        (bundle / "README.md").unlink()
    else:
        (bundle / "notes.txt").write_text("mine", "utf-8")
    said = {"changed": "not the file that manifest.json lists", "missing": "missing from", "extra": "is not listed in"}
    assert said[damage] in slmx.refuses_unchanged("pack", bundle, "--out", "a.slmx")


def test_a_file_that_is_no_packed_bundle_is_never_replaced(slmx: Slmx, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", "utf-8")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("photo.jpg", b"a photo")
    for name in ("notes.txt", "photos.zip"):
        line = f"{name}: a file that is no packed bundle, and slmx never replaces such a file; choose another --out"
        assert slmx.refuses_unchanged("pack", bundle, "--out", name) == line
        assert slmx.refuses_unchanged("pack", bundle, "--out", name, "--force") == line
    (tmp_path / "folder").mkdir()
    assert slmx.refuses_unchanged("pack", bundle, "--out", "folder", "--force") == (
        "folder: a folder stands where the file should go; choose another --out"
    )
    assert slmx.refuses_unchanged("pack", bundle, "--out", "none/a.slmx") == (
        f"{tmp_path / 'none'}: no such folder; make it, or choose another --out"
    )


def test_a_bundle_is_not_packed_into_itself(
    slmx: Slmx, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(bundle)
    rest = f"inside {bundle}, a bundle, which would then hold something that is not its own; choose another --out"
    for out in (bundle / "in.slmx", bundle / "none" / "in.slmx", tmp_path / "link" / "in.slmx"):
        assert slmx.refuses_unchanged("pack", bundle, "--out", out) == f"{out}: {rest}"
        assert slmx.refuses_unchanged("pack", tmp_path / "link", "--out", out, "--force") == f"{out}: {rest}"
    monkeypatch.chdir(bundle)
    assert slmx.refuses_unchanged("pack", ".") == f"{bundle.name}.slmx: {rest}"


@pytest.mark.parametrize("link", ["ln.slmx", "ln.slmx.sig"])
def test_nothing_is_written_through_a_symbolic_link(slmx: Slmx, bundle: Path, tmp_path: Path, link: str) -> None:
    line = f"{link}: a symbolic link, and slmx pack does not write through one; choose another --out"
    pack(synthetic_bundle(tmp_path / "other", {}), tmp_path / "a.slmx")
    for target in ("a.slmx", "missing"):
        (tmp_path / link).symlink_to(target)
        for force in ((), ("--force",)):
            assert slmx.refuses_unchanged("pack", bundle, "--out", "ln.slmx", *force) == line
        assert not (tmp_path / "missing").exists()
        (tmp_path / link).unlink()


def test_another_bundle_is_replaced_only_with_force(slmx: Slmx, bundle: Path, tmp_path: Path) -> None:
    other = synthetic_bundle(tmp_path / "other", {})
    assert slmx("pack", other, "--out", "a.slmx").code == 0
    assert slmx("pack", other, "--out", "a.slmx").code == 0, "the same bundle is no other one"
    line = "a.slmx: holds another bundle; choose another --out, or --force to replace it"
    assert slmx.refuses_unchanged("pack", bundle, "--out", "a.slmx") == line
    assert slmx("pack", bundle, "--out", "a.slmx", "--force").code == 0
    assert Bundle.open(tmp_path / "a.slmx").manifest_sha256 == sha256_of(bundle / MANIFEST_FILE)
    assert slmx("pack", "a.slmx", "--out", "a.slmx").code == 0, "onto itself"
    assert Bundle.open(tmp_path / "a.slmx").problems() == []


KILLED = """
import os, signal, sys
from runtimes.pack import packing
real = packing.write_archive
def write(file, files):
    real(file, files)
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
packing.write_archive = write
sys.argv = ["slmx", *sys.argv[1:]]
from slm.cli import main; main()
"""


def test_a_kill_leaves_the_file_that_was_there(slmx: Slmx, bundle: Path, tmp_path: Path) -> None:
    assert slmx("pack", synthetic_bundle(tmp_path / "other", {}), "--out", "a.slmx").code == 0
    before = (tmp_path / "a.slmx").read_bytes()
    command = [sys.executable, "-c", KILLED, "pack", str(bundle), "--out", "a.slmx", "--force"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False).returncode == -9
    assert (tmp_path / "a.slmx").read_bytes() == before


def test_a_full_disk_is_one_line(slmx: Slmx, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: io.BytesIO, *args: object) -> None:
        file.write(b"begun")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packing, "write_archive", fail)
    said = "nothing was changed there; free space there, or use another folder"
    line = f"a.slmx: cannot write (No space left on device); {said}"
    assert slmx.refuses_unchanged("pack", bundle, "--out", "a.slmx") == line


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="a folder where nobody can make a file")
def test_a_folder_where_no_file_can_be_made_is_one_line(slmx: Slmx, bundle: Path) -> None:
    line = slmx.refuses_unchanged("pack", bundle, "--out", "/proc/x.slmx")
    assert line == "/proc/x.slmx: cannot write (No such file or directory); use another folder"


def test_what_is_too_large_for_one_file_is_refused(
    slmx: Slmx, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(packing, "MAX_BYTES", 2**20 + 1000)
        assert "more than one file holds" in slmx.refuses_unchanged("pack", bundle, "--out", "a.slmx")
    many = synthetic_bundle(tmp_path / "many", {f"f/{number}": b"" for number in range(1000)})
    assert "in 1,003 files, more than one file holds" in slmx.refuses_unchanged("pack", many, "--out", "a.slmx")


def test_an_unpacked_folder_replaces_only_a_bundle_of_slmx(slmx: Slmx, bundle: Path, tmp_path: Path) -> None:
    archive = pack(bundle, tmp_path / "a.slmx")
    other = synthetic_bundle(tmp_path / "a", {})
    assert slmx.refuses_unchanged("unpack", archive).startswith("a: not empty; choose another --out, or --force")
    assert slmx("unpack", archive, "--force").code == 0
    assert snapshot(other) == snapshot(bundle)
    (tmp_path / "a" / "notes.txt").write_text("mine", "utf-8")
    assert "notes.txt was not made by slmx" in slmx.refuses_unchanged("unpack", archive, "--force")


def test_a_folder_is_not_unpacked(slmx: Slmx, bundle: Path) -> None:
    assert slmx.refuses_unchanged("unpack", bundle, "--out", "b") == (
        f"{bundle}: a folder already; slmx unpack takes a file that slmx pack made"
    )


def test_a_changed_file_in_an_archive_is_found_before_anything_is_written(
    slmx: Slmx, bundle: Path, tmp_path: Path
) -> None:
    entries = entries_of(bundle)
    last = entries[-1]
    archive = tmp_path / "a.slmx"
    archive.write_bytes(zip_of([*entries[:-1], Entry(last.name, last.content[:-1] + b"?")]))
    line = slmx.refuses_unchanged("unpack", archive)
    assert line.startswith(f"{archive}:tokenizer_config.json: not the file that manifest.json lists")
    archive.write_bytes(zip_of(entries[:-1]))
    assert "tokenizer_config.json: missing from the archive" in slmx.refuses_unchanged("unpack", archive)


def test_a_bundle_that_changes_while_it_is_packed_is_not_written(
    slmx: Slmx, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(self: Bundle) -> None:
        (bundle / "README.md").write_text("another", "utf-8")

    monkeypatch.setattr(Bundle, "check_only_listed_files", change)
    line = slmx.refuses("pack", bundle, "--out", "a.slmx")
    assert "README.md: not the file that manifest.json lists" in line
    assert not Path("a.slmx").exists()

    def change_manifest(self: Bundle) -> None:
        (bundle / MANIFEST_FILE).write_bytes((bundle / MANIFEST_FILE).read_bytes() + b"\n")

    monkeypatch.setattr(Bundle, "check_only_listed_files", change_manifest)
    assert slmx.refuses("pack", bundle, "--out", "a.slmx").endswith("changed meanwhile; run the command again")


def test_the_empty_archive_ends_where_it_begins() -> None:
    file = io.BytesIO()
    write_archive(file, [])
    assert file.getvalue() == zip_of([])
    assert hashlib.sha256(file.getvalue()).hexdigest() == hashlib.sha256(b"PK\5\6" + bytes(18)).hexdigest()


# Packs in a process that can import only the packages of the plain install.
PLAIN = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "cryptography", "brotli"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Nothing())
sys.argv = ["slmx", *sys.argv[1:]]
from slm.cli import main
main()
"""


@pytest.mark.slow
def test_the_plain_install_packs_and_unpacks_and_says_what_signing_needs(bundle: Path, tmp_path: Path) -> None:
    def plain(*args: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PLAIN, *map(str, args)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert plain("pack", bundle, "--out", "a.slmx").returncode == 0
    assert plain("unpack", "a.slmx").returncode == 0
    assert snapshot(tmp_path / "a") == snapshot(bundle)
    for command in (
        ("keygen",),
        ("sign", "a.slmx", "--key", "k"),
        ("verify", "a.slmx", "--key", "k"),
        ("generate", "Once", "--bundle", "a.slmx", "--require-signature", "k"),
    ):
        ran = plain(*command)
        assert (ran.returncode, ran.stderr.splitlines()[-1].endswith(pip_line("sign"))) == (1, True), command


def test_every_manifest_lists_what_the_synthetic_one_does() -> None:
    assert {"tokenizer.tiktoken", "onnx/model.onnx"} <= set(ALWAYS)
