"""`slmx list` shows every bundle that is here, and `slmx rm` removes one whose files are all those of slmx."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from runtimes.bundle.location import SHIPPED_BUNDLES, pulled_bundles
from runtimes.bundle.manifest import MadeFrom
from runtimes.bundle.variants import VARIANTS
from runtimes.hub.inventory import Entry, Origin
from runtimes.hub.record import Record, record_path, write_record
from slm.provenance import source_of
from slm.storage.hashing import sha256_of
from slm.storage.locks import lock_folder
from tests.bundles import Slmx, copy_of, snapshot
from tests.hubs import MICRO, MODEL, NAME, NANO, RUN
from tests.test_imports import loaded

MINE = Path("bundles") / "mine"


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for data, outside of the working folder."""
    folder = tmp_path.with_name(f"{tmp_path.name}-data")
    monkeypatch.setenv("XDG_DATA_HOME", str(folder))
    return folder


@pytest.fixture
def pulled(data: Path) -> Path:
    """A bundle as `slmx pull` leaves it."""
    bundle = copy_of(NANO, pulled_bundles() / NAME)
    manifest = sha256_of(bundle / "manifest.json")
    write_record(bundle, Record("https://hub", NAME, "main", "c" * 40, "2026-11-30T12:00:00+00:00", manifest))
    return bundle


def listed(slmx: Slmx) -> dict[str, dict[str, object]]:
    """What `slmx list --json` prints, by name."""
    ran = slmx("list", "--json")
    assert (ran.code, ran.stderr) == (0, "")
    return {entry["name"]: entry for entry in json.loads(ran.stdout)}


def test_the_shipped_bundles_are_listed(slmx: Slmx) -> None:
    entries = listed(slmx)
    assert list(entries) == ["micro", "nano", "small"]
    assert entries["nano"]["origin"] == "shipped"
    assert entries["nano"]["path"] == str(NANO)
    assert entries["nano"]["bytes"] == sum(path.stat().st_size for path in NANO.rglob("*") if path.is_file())
    assert entries["nano"]["variants"] == ["int8"]
    assert entries["nano"]["date"] is None


def test_names_are_the_same_characters_in_every_json(slmx: Slmx) -> None:
    copy_of(NANO, Path("bundles", "café"))
    for ran in (slmx("list", "--json"), slmx("info", "bundles/café", "--json")):
        assert ran.code == 0
        assert "café" in ran.stdout


def test_exported_and_pulled_bundles_are_listed_with_date_and_source(slmx: Slmx, pulled: Path) -> None:
    copy_of(MICRO, MINE)
    os.utime(MINE / "manifest.json", (0, 1_700_000_000))
    Path(shutil.make_archive("bundles/packed", "zip", NANO)).rename("bundles/packed.slmx")
    entries = listed(slmx)
    assert list(entries) == ["micro", "nano", "small", "mine", "packed.slmx", NAME]
    assert [entry["origin"] for entry in entries.values()] == [*["shipped"] * 3, *["exported"] * 2, "pulled"]
    assert entries["mine"]["date"] == "2023-11-14T22:13:20+00:00"
    assert str(entries["mine"]["source"]).startswith("tinystories-train.txt")
    assert entries["packed.slmx"]["bytes"] == Path("bundles/packed.slmx").stat().st_size
    assert entries[NAME]["date"] == "2026-11-30T12:00:00+00:00"
    assert entries[NAME]["source"] == f"https://hub/{NAME} at {'c' * 12}"
    table = slmx("list").stdout.splitlines()
    assert table[0].split() == ["name", "origin", "MB", "date", "variants", "source"]
    assert table[6].split()[:5] == [NAME, "pulled", "2.3", "2026-11-30", "int8"]
    copy_of(MICRO, Path("bundles/micro"))
    assert list(listed(slmx))[3:5] == ["bundles/micro", "mine"], "micro is the shipped one"


@pytest.mark.parametrize(
    ("texts", "listed"),
    [
        (["stories.txt (train)", "valid.txt (valid)"], "stories.txt (fine-tuned)"),
        (["a.txt (train)", "b.txt (train)"], "a.txt and 1 more (fine-tuned)"),
    ],
)
def test_a_fine_tuned_model_is_listed_with_its_own_texts(
    texts: list[str], listed: str, slmx: Slmx, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [{"file": name, "split": "train"} for name in ("tinystories-train.txt", "more, and more.txt")]
    own = [dict(zip(("file", "split"), text.removesuffix(")").split(" ("), strict=True)) for text in texts]
    source = source_of({"data": own, "init": {"record": {"data": first}}})
    shown = MadeFrom("0" * 64, False, source).shown_source
    entry = Entry("mine", Origin.EXPORTED, Path("bundles"), 1, None, shown, ("int8",))
    monkeypatch.setattr("runtimes.hub.inventory.list_bundles", lambda: [entry])
    assert slmx("list").stdout.splitlines()[1].endswith(f"  int8      {listed}")


def test_the_list_fits_a_terminal_also_with_all_variants(slmx: Slmx, monkeypatch: pytest.MonkeyPatch) -> None:
    name, when, sources = "nano-of-all-variants", "2026-11-30T12:00:00+00:00", "tinystories-train.txt, other.txt"
    entries = [
        Entry(name * repeat, Origin.EXPORTED, Path("bundles"), 123_456_789, when, sources, variants)
        for repeat, variants in ((1, tuple(VARIANTS)), (1, ("int8", "fp32")), (4, ("int8",)))
    ]
    monkeypatch.setenv("COLUMNS", "80")
    for shown in (entries[:2], entries):
        monkeypatch.setattr("runtimes.hub.inventory.list_bundles", lambda shown=shown: shown)
        whole = slmx("list").stdout
        assert [" fp32 and 8 more " in line for line in whole.splitlines()[:3]] == [False, True, False]
        assert " int8,fp32 " in whole
        with monkeypatch.context() as terminal:
            terminal.setattr("sys.stdout.isatty", lambda: True)
            lines = slmx("list").stdout.splitlines()
        assert max(map(len, lines)) <= 80
        assert " ".join(lines).split() == whole.split()


def test_a_bundle_that_was_pulled_to_another_place_says_where_it_came_from(slmx: Slmx) -> None:
    copy_of(NANO, MINE)
    manifest = sha256_of(MINE / "manifest.json")
    write_record(MINE, Record("https://hub", NAME, "main", "c" * 40, "2026-11-30T12:00:00+00:00", manifest))
    assert listed(slmx)["mine"]["source"] == f"https://hub/{NAME} at {'c' * 12}"
    slmx("rm", "mine", "--yes")
    assert list(MINE.parent.iterdir()) == []


def test_a_damaged_bundle_is_listed_as_damaged(slmx: Slmx, pulled: Path) -> None:
    (pulled / "manifest.json").write_text("{}")
    entry = listed(slmx)[NAME]
    assert entry["variants"] == []
    assert str(entry["problem"]).startswith(f"{pulled}/manifest.json: not a bundle manifest")
    assert f"  damaged: {pulled}/manifest.json" in slmx("list").stdout


def test_a_record_of_another_manifest_is_not_shown(slmx: Slmx, pulled: Path) -> None:
    shutil.copyfile(MICRO / "manifest.json", pulled / "manifest.json")
    assert "hub" not in str(listed(slmx)[NAME]["source"])


def test_neither_needs_the_client_or_anything_heavy(tmp_path: Path, pulled: Path) -> None:
    names = loaded("sys.argv = ['slmx', 'list']; import slm.cli; slm.cli.main()", tmp_path)
    assert not names & {"huggingface_hub", "filelock", "numpy", "onnxruntime"}
    names = loaded(f"sys.argv = ['slmx', 'rm', '{NAME}', '--yes']; import slm.cli; slm.cli.main()", tmp_path)
    assert not names & {"huggingface_hub", "numpy", "onnxruntime"}
    assert not pulled.exists()


@pytest.mark.parametrize("name", [NAME, "tales"])
def test_a_pulled_bundle_goes_with_its_record(slmx: Slmx, pulled: Path, name: str) -> None:
    (pulled / "verification.json").write_text("{}")
    ran = slmx("rm", name, "--yes")
    assert (ran.code, ran.stdout, ran.stderr) == (0, "", f"removed {pulled}\n")
    assert not pulled.parent.exists()


def test_other_bundles_of_an_owner_stay(slmx: Slmx, pulled: Path) -> None:
    other = copy_of(MICRO, pulled.with_name("other"))
    slmx("rm", NAME, "--yes")
    assert snapshot(other.parent) == {f"other/{name}": value for name, value in snapshot(MICRO).items()}


@pytest.mark.parametrize("name", ["mine", "bundles/mine", "packed.slmx"])
def test_an_exported_bundle_goes(slmx: Slmx, name: str) -> None:
    copy_of(MICRO, MINE)
    Path(shutil.make_archive("bundles/packed", "zip", NANO)).rename("bundles/packed.slmx")
    Path("bundles/packed.slmx.verification.json").write_text("{}")
    Path("bundles/packed.slmx.sig").write_text("mine")
    assert slmx("rm", name, "--yes").code == 0
    beside = {path.name for path in Path("bundles").iterdir()} - {"mine", "packed.slmx"}
    assert beside == {"packed.slmx.sig"} | ({"packed.slmx.verification.json"} if "mine" in name else set())
    for path in beside:
        Path("bundles", path).unlink()
    assert [path.name for path in Path("bundles").iterdir()] == ["packed.slmx" if "mine" in name else "mine"]


def test_a_shipped_bundle_stays(slmx: Slmx) -> None:
    before = snapshot(SHIPPED_BUNDLES)
    for name in ("nano", str(NANO)):
        assert slmx.refuses("rm", name, "--yes") == f"{name}: it is a part of slmx itself, which pip removes"
    assert snapshot(SHIPPED_BUNDLES) == before


@pytest.mark.parametrize("strange", ["notes.txt", MODEL])
def test_a_file_that_is_not_of_slmx_keeps_the_bundle(slmx: Slmx, strange: str) -> None:
    copy_of(MICRO, MINE)
    (MINE / strange).write_text("mine")
    assert slmx.refuses_unchanged("rm", "mine", "--yes") == (
        f"{MINE}: {strange} was added or changed there, so nothing was removed; delete it yourself"
    )


@pytest.mark.parametrize("content", ["an added file", "half an archive"])
def test_an_archive_that_is_not_as_slmx_wrote_it_is_kept(slmx: Slmx, content: str) -> None:
    path = Path("bundles/packed.slmx")
    path.parent.mkdir()
    Path(shutil.make_archive("packed", "zip", MICRO)).rename(path)
    if content == "an added file":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("notes.txt", "mine")
    else:
        path.write_bytes(path.read_bytes()[:1000])
    assert slmx.refuses_unchanged("rm", "packed.slmx", "--yes") == (
        f"{path}: the archive is not as slmx wrote it, so nothing was removed; delete it yourself"
    )


def test_what_is_elsewhere_or_a_link_is_not_removed(slmx: Slmx) -> None:
    copy_of(MICRO, Path("elsewhere"))
    assert slmx.refuses_unchanged("rm", "elsewhere", "--yes") == (
        "elsewhere: slmx removes only bundles that slmx list shows; delete this one yourself"
    )
    MINE.parent.mkdir()
    MINE.symlink_to(Path("elsewhere").absolute())
    assert slmx.refuses_unchanged("rm", "mine", "--yes") == f"{MINE}: a link to a bundle; delete the link yourself"


def test_a_bundle_that_another_process_writes_is_not_removed(slmx: Slmx) -> None:
    copy_of(MICRO, MINE)
    with lock_folder(MINE):
        code = f"import sys; sys.argv = ['slmx', 'rm', 'mine', '--yes']; {RUN}"
        assert os.waitstatus_to_exitcode(os.system(f'"{sys.executable}" -c "{code}" 2>/dev/null')) == 1
    assert snapshot(MINE) == snapshot(MICRO)


def test_without_a_terminal_it_needs_yes(slmx: Slmx, pulled: Path) -> None:
    assert slmx.refuses("rm", NAME, code=2) == f"remove {pulled} (pulled, 2.3 MB)? add --yes"
    assert pulled.exists()


@pytest.mark.parametrize(("answer", "stays"), [("y", False), ("n", True), ("", True)])
def test_on_a_terminal_it_asks(slmx: Slmx, monkeypatch: pytest.MonkeyPatch, answer: str, stays: bool) -> None:
    copy_of(MICRO, MINE)
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    with os.fdopen(theirs, "r") as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        ran = slmx("rm", "mine")
    os.close(ours)
    assert re.match(rf"remove {MINE} \(exported, \d\.\d MB\)\? \[y/N\]:", ran.stderr)
    assert (ran.code, MINE.exists()) == (int(stays), stays)


def test_a_mistyped_name_names_the_nearest(slmx: Slmx, pulled: Path) -> None:
    assert "did you mean tales" in slmx.refuses("rm", "talse", "--yes")
    assert record_path(pulled).exists()


@pytest.mark.parametrize("name", ["zzz", "bundles/zzz", "zzz.slmx", "owner/zzz"])
def test_a_name_like_no_other_is_told_to_look_at_the_list(slmx: Slmx, name: str) -> None:
    assert slmx.refuses("rm", name, "--yes") == (
        f"{name}: no such path, and no bundle of this name; slmx list shows what is here"
    )
