"""A bundle is found by its path, or else by its name, in every command in the same way."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes import load
from runtimes.bundle.location import SHIPPED_BUNDLES, bundle_notice, bundle_path, pulled_bundles
from slm.console.errors import SlmxError
from tests.bundles import Slmx, copy_of

NANO, MICRO = SHIPPED_BUNDLES / "nano", SHIPPED_BUNDLES / "micro"
EXPORTED = Path("bundles") / "mine"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and an empty folder of pulled bundles."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def pulled(name: str) -> Path:
    """A bundle as `slmx pull` leaves it."""
    return copy_of(NANO, pulled_bundles() / name)


def test_names_of_shipped_exported_and_pulled_bundles() -> None:
    copy_of(MICRO, EXPORTED)
    one = pulled("someone/tales")
    assert bundle_path("nano") == NANO
    assert bundle_path("mine") == EXPORTED
    assert bundle_path("someone/tales") == bundle_path("tales") == one
    assert load("tales").bundle.path == one


def test_a_path_that_exists_is_taken_before_a_name() -> None:
    one = pulled("someone/tales")
    for name, hidden in (("nano", NANO), ("tales", one), ("someone/tales", one)):
        copy_of(MICRO, Path(name))
        assert bundle_path(name) == Path(name)
        assert bundle_notice(Path(name)) == (
            f"{name}: this folder is taken, not the bundle of the same name, which is {hidden}"
        )
        shutil.rmtree(Path(name).parts[0])


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch])
def test_a_path_that_is_no_bundle_and_hides_one_says_how_to_name_that_one(
    slmx: Slmx, make: Callable[[Path], None]
) -> None:
    make(Path("nano"))
    line = slmx.refuses("info", "nano")
    advice = "; it hides the bundle of the same name: name that one by its path, "
    assert line.startswith("nano: ")
    assert line.endswith(f"{advice}{NANO}")
    assert slmx("info", line.split()[-1]).code == 0
    assert slmx.refuses("evaluate", "nano", "--suite", "pairs").endswith(f"{advice}{NANO}")
    Path("nowhere").mkdir()
    assert "hides" not in slmx.refuses("info", "nowhere")


def test_a_command_says_that_it_takes_a_path_and_not_a_name(slmx: Slmx, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_of(MICRO, Path("nano"))
    taken = f"nano: this folder is taken, not the bundle of the same name, which is {NANO}\n"
    for command in (("info",), ("pack",), ("web", "--out", "site")):
        ran = slmx(command[0], "nano", *command[1:])
        assert ran.code == 0
        assert ran.stderr.startswith(taken)
        assert ran.stderr.count("is taken") == 1
    for path in (Path("./nano").absolute(), NANO):
        assert "is taken" not in slmx("info", path).stderr
    monkeypatch.chdir(SHIPPED_BUNDLES)
    assert "is taken" not in slmx("info", "nano").stderr


def test_the_order_of_names_is_shipped_exported_pulled() -> None:
    other = pulled("someone/nano")
    pulled("someone/mine")
    copy_of(MICRO, Path("bundles") / "nano")
    copy_of(MICRO, EXPORTED)
    assert bundle_path("nano") == NANO
    assert bundle_path("mine") == EXPORTED
    assert bundle_path("someone/nano") == other


def test_a_name_of_two_owners_is_ambiguous() -> None:
    pulled("a/tales")
    pulled("b/tales")
    with pytest.raises(SlmxError, match=r"^tales: there are a/tales and b/tales; name one of them$"):
        bundle_path("tales")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("nanno", "nano"),
        ("mien", "mine"),
        ("tale", "tales"),
        ("someone/talse", "someone/tales"),
        ("bundles/miné", "bundles/mine"),
        ("bundles/packd.slmx", "bundles/packed.slmx"),
        ("MINE", "mine"),
        ("Someone/TALES", "someone/tales"),
        ("packed", "packed.slmx"),
        ("bundles/PACKED", "bundles/packed.slmx"),
    ],
)
def test_a_mistyped_name_names_the_nearest(typed: str, meant: str) -> None:
    copy_of(MICRO, EXPORTED)
    (EXPORTED.parent / "packed.slmx").touch()
    pulled("someone/tales")
    with pytest.raises(SlmxError) as error:
        bundle_path(typed)
    assert str(error.value).startswith(f"{typed}: no such path, and no bundle of this name; did you mean {meant}")


def test_a_name_as_on_a_hub_says_how_to_bring_it() -> None:
    with pytest.raises(SlmxError) as error:
        bundle_path("roneneldan/stories")
    assert str(error.value) == (
        "roneneldan/stories: no such path, and no bundle of this name; slmx list shows what is here, "
        "and slmx pull roneneldan/stories brings it if it is on the hub"
    )
    for path in ("bundles/xyz", "/no/where", "xyz"):
        with pytest.raises(SlmxError, match="no bundle here"):
            bundle_path(path)


def test_files_that_another_pull_is_making_have_no_name() -> None:
    pulled("someone/tales").rename(pulled_bundles() / "someone" / ".slmx-work-tales")
    with pytest.raises(SlmxError):
        bundle_path("someone/.slmx-work-tales")


def test_where_pulled_bundles_are(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pulled_bundles() == home / "data" / "slmx" / "bundles"
    monkeypatch.setenv("HOME", str(home))
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_DATA_HOME", ignored)
        assert pulled_bundles() == home / ".local" / "share" / "slmx" / "bundles"


def test_a_user_without_a_home_folder_has_no_pulled_bundles(slmx: Slmx, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a user has no entry in the list of users either, or a home folder that is a relative path."""
    monkeypatch.setenv("HOME", "relative")
    monkeypatch.delenv("XDG_DATA_HOME")
    copy_of(NANO, Path("relative/.local/share/slmx/bundles/someone/tales"))
    line = "no home folder for the bundles that slmx pull brings: set XDG_DATA_HOME to a folder"
    assert slmx.refuses("pull", "someone/other") == line
    assert [*Path("relative/.local/share/slmx/bundles/someone").iterdir()] == [
        Path("relative/.local/share/slmx/bundles/someone/tales")
    ]
    assert "someone/tales" not in slmx("list").stdout
    with pytest.raises(SlmxError):
        bundle_path("someone/tales")
    assert bundle_path("nano") == NANO


@given(st.text("ab/.@~\\\0\n -é", max_size=12))
def test_no_name_leads_elsewhere(name: str) -> None:
    try:
        found = bundle_path(name)
    except SlmxError:
        return
    assert found == Path(name)
    assert found.exists()


@pytest.mark.slow
def test_every_command_that_takes_a_bundle_takes_a_name(slmx: Slmx) -> None:
    bundle = pulled("someone/tales")
    story = ("--max-tokens", "3", "--seed", "1")
    assert slmx("generate", "Once", "--bundle", "tales", *story).code == 0
    assert slmx("info", "someone/tales").stdout.startswith("nano: ")
    assert slmx("verify", "tales").stdout.endswith("every hash matches\n")
    assert slmx("web", "tales", "--out", "site").code == 0
    assert slmx("bench", "someone/talse").stderr.endswith("did you mean someone/tales?\n")
    shutil.rmtree(bundle)
    for command in (("generate", "--bundle"), ("info",), ("verify",), ("web",), ("doctor", "--bundle"), ("bench",)):
        assert slmx(*command, "someone/tales").stderr.endswith("brings it if it is on the hub\n")
