"""A pull that asks for a signature checks it before anything that it signs, and an archive gives the same bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtimes.bundle.store import Bundle
from runtimes.pack.packing import pack_bundle
from tests.bundles import copy_of, edit_manifest, snapshot
from tests.hubs import MICRO, NAME, NANO, Client, files_of
from tests.runtimes.hub.hub_server import MEMBER, Files, Hub

pytest.importorskip("cryptography", reason="needs the extra [sign]")
keys = pytest.importorskip("runtimes.pack.keys")
signature = pytest.importorskip("runtimes.pack.signature")
pytestmark = pytest.mark.slow
OTHERS = set(files_of(NANO)) - {"manifest.json"}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[Path, Path], tuple[Path, Path]]:
    """Two pairs of a private and a public key."""
    folder = tmp_path_factory.mktemp("keys")
    return keys.make_keys(folder / "mine"), keys.make_keys(folder / "theirs")


@pytest.fixture(scope="module")
def signed(pairs: tuple[tuple[Path, Path], ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The nano, signed with the first key."""
    bundle = copy_of(NANO, tmp_path_factory.mktemp("signed") / "bundle")
    signature.sign_bundle(Bundle.open(bundle), pairs[0][0])
    return bundle


@pytest.fixture
def key(pairs: tuple[tuple[Path, Path], ...]) -> Path:
    """The public key of the one who signed."""
    return pairs[0][1]


@pytest.fixture
def other_key(pairs: tuple[tuple[Path, Path], ...]) -> Path:
    """The public key of somebody else."""
    return pairs[1][1]


def packed(bundle: Path, folder: Path) -> Files:
    """The archive of a bundle, and its signature if it has one."""
    pack_bundle(Bundle.open(bundle), folder / "tales.slmx", replace=True, log=print)
    return {path.name: path.read_bytes() for path in folder.glob("tales.slmx*")}


def test_the_signature_is_checked_before_what_it_signs_and_stays_with_the_bundle(
    hub: Hub, client: Client, signed: Path, key: Path
) -> None:
    hub.add(NAME, files_of(signed))
    client.works("pull", NAME, "--require-signature", key)
    asked = hub.asked("GET")
    assert asked[:2] == ["manifest.json", "model.sig"]
    assert set(asked[2:]) == OTHERS
    assert snapshot(client.pulled) == snapshot(signed)
    client.works("generate", "Once", "--bundle", NAME, "--require-signature", key, "--max-tokens", "2")
    assert client.works("pull", NAME, "--require-signature", key)[0] == f"{NAME} is up to date"
    away = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(client.cache / "empty")}
    assert client.works("pull", NAME, "--require-signature", key, **away)[0].endswith("the copy that is here stays")


def test_a_signature_that_is_asked_for_later_is_added(hub: Hub, client: Client, signed: Path, key: Path) -> None:
    hub.add(NAME, files_of(signed))
    client.works("pull", NAME)
    assert "model.sig" not in hub.asked()
    assert snapshot(client.pulled) == snapshot(NANO)
    away = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(client.cache / "empty")}
    assert "not signed: there is no" in client.refuses("pull", NAME, "--require-signature", key, **away)
    client.works("pull", NAME, "--require-signature", key)
    assert snapshot(client.pulled) == snapshot(signed)


def test_without_a_valid_signature_no_other_file_is_asked_for(
    hub: Hub, client: Client, signed: Path, key: Path, other_key: Path
) -> None:
    line = client.refuses("pull", NAME, "--require-signature", key)
    assert line == f"{NAME}: not signed: no model.sig in this repository; ask its owner for a signature"
    hub.add(NAME, files_of(signed))
    line = client.refuses("pull", NAME, "--require-signature", other_key)
    assert line == (f"{NAME}/model.sig: made with another key than {other_key}; name the key of who signed it")
    hub.add(NAME, files_of(MICRO) | {"model.sig": files_of(signed)["model.sig"]})
    line = client.refuses("pull", NAME, "--require-signature", key)
    assert line.startswith(f"{NAME}/manifest.json: not the manifest that was signed; ")
    hub.add(NAME, files_of(NANO) | {"model.sig": b"{}"})
    line = client.refuses("pull", NAME, "--require-signature", key)
    assert line.startswith(f"{NAME}/model.sig: not a signature that slmx reads")
    hub.add(NAME, files_of(NANO) | {"model.sig": bytes(5_000_000)})
    line = client.refuses("pull", NAME, "--require-signature", key)
    assert line.startswith(f"{NAME}: its model.sig has 5,000,000 bytes, which no signature has")
    assert not set(hub.asked()) & OTHERS


def test_a_bundle_that_is_pushed_keeps_its_signature(hub: Hub, client: Client, signed: Path, key: Path) -> None:
    owner = {"HF_TOKEN": MEMBER}
    client.works("push", signed, "me/signed", **owner)
    assert hub.repositories["me/signed"].files()["model.sig"] == files_of(signed)["model.sig"]
    client.works("pull", "me/signed", "--require-signature", key, "--out", "back")
    assert snapshot(client.here / "back") == snapshot(signed)
    client.works("push", "nano", "me/signed", **owner)
    assert "model.sig" not in hub.repositories["me/signed"].files()


def test_an_archive_gives_the_same_bundle(hub: Hub, client: Client, signed: Path, key: Path, tmp_path: Path) -> None:
    hub.add(NAME, packed(signed, tmp_path) | {"README.md": b"# Archives"})
    assert client.works("pull", NAME, "--file", "tales.slmx")[0].startswith(f"pulled {NAME}")
    assert set(hub.asked("GET")) == {"tales.slmx"}
    assert snapshot(client.pulled) == snapshot(NANO)
    assert client.record["file"] == "tales.slmx"
    assert client.works("pull", NAME, "--file", "tales.slmx")[0] == f"{NAME} is up to date"
    client.works("pull", NAME, "--file", "tales.slmx", "--require-signature", key)
    assert snapshot(client.pulled) == snapshot(signed)
    client.works("pull", NAME, "--file", "tales.slmx", "--require-signature", key, "--out", "mine")
    assert snapshot(client.here / "mine") == snapshot(signed)
    client.works("pull", NAME, "--file", "tales.slmx", "--out", "plain")
    assert snapshot(client.here / "plain") == snapshot(NANO), "a signature in the cache that was not asked for"


def test_an_archive_that_is_damaged_missing_or_not_signed(
    hub: Hub, client: Client, signed: Path, other_key: Path, tmp_path: Path
) -> None:
    files = packed(signed, tmp_path)
    archive = files["tales.slmx"]
    wanted = ("pull", NAME, "--file", "tales.slmx")
    hub.add(NAME, files)
    line = client.refuses(*wanted, "--require-signature", other_key)
    assert line.startswith(f"{NAME}/tales.slmx.sig: made with another key than {other_key}")
    hub.add(NAME, {"tales.slmx": archive})
    line = client.refuses(*wanted, "--require-signature", other_key)
    assert line == f"{NAME}: not signed: no tales.slmx.sig in this repository; ask its owner for a signature"
    assert client.refuses("pull", NAME, "--file", "tail.slmx") == (
        f"{NAME}: no tail.slmx in this repository; check the name of the file"
    )
    middle = len(archive) // 2
    hub.repositories[NAME].commit({"tales.slmx": archive[:middle] + b"!" + archive[middle + 1 :]})
    line = client.refuses(*wanted)
    assert line.startswith(f"{NAME}/tales.slmx:")
    assert client.misused("pull", NAME, "--file", "../tales.slmx").startswith("--file ../tales.slmx: no name of a file")


def test_only_the_folder_of_the_cache_becomes_the_name_of_the_repository(hub: Hub, client: Client) -> None:
    hub.add(NAME, {"NoneSuch.slmx": b"notes"})
    line = client.refuses("pull", NAME, "--file", "NoneSuch.slmx")
    assert line.startswith(f"{NAME}/NoneSuch.slmx: neither the folder of a bundle nor a whole zip archive of one")


def test_a_damaged_archive_in_the_cache_is_brought_again(hub: Hub, client: Client, tmp_path: Path) -> None:
    hub.add(NAME, packed(NANO, tmp_path))
    client.works("pull", NAME, "--file", "tales.slmx", "--out", "first")
    (cached,) = client.cache.rglob("tales.slmx")
    content = cached.read_bytes()
    cached.resolve().write_bytes(content[:1000] + b"!" + content[1001:])
    line = client.refuses("pull", NAME, "--file", "tales.slmx", HF_HUB_OFFLINE="1")
    assert line.startswith(f"{NAME}/tales.slmx:")
    client.works("pull", NAME, "--file", "tales.slmx")
    assert snapshot(client.pulled) == snapshot(NANO)


def test_a_manifest_that_lists_a_signature_is_refused(hub: Hub, client: Client, signed: Path, tmp_path: Path) -> None:
    bundle = copy_of(signed, tmp_path / "bundle")
    entry = {"what": "a signature", "bytes": 1, "sha256": "0" * 64}
    edit_manifest(bundle, files={"model.sig": entry})
    hub.add(NAME, files_of(bundle))
    assert "it lists model.sig" in client.refuses("pull", NAME)


def test_a_key_that_cannot_be_used_is_told_before_the_hub_is_asked(hub: Hub, client: Client, tmp_path: Path) -> None:
    ran = client.run("pull", NAME, "--require-signature", tmp_path / "none.pem")
    assert ran.returncode == 1
    assert "none.pem" in ran.stderr
    assert hub.requests == []
