"""`slmx pull` brings exactly the bundle that a repository holds, in one step, and says where it came from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from runtimes import load
from runtimes.bundle.manifest import MAX_MANIFEST_BYTES
from runtimes.hub.record import record_path
from slm.storage.hashing import sha256_of
from tests.bundles import copy_of, snapshot
from tests.hubs import MICRO, MODEL, NAME, NANO, RUN, Client, files_of
from tests.runtimes.hub.hub_server import MEMBER, Hub

LISTED = sorted(set(files_of(NANO)) - {"manifest.json"})
STORY = ("--max-tokens", "8", "--seed", "3")
WITHOUT_CLIENT = (
    "import sys; sys.modules['huggingface_hub'] = sys.modules['filelock'] = None\n"
    "from runtimes import load\nprint(load(sys.argv[1]).generate('Once upon a time', max_tokens=8, seed=3).full_text)"
)


def test_it_brings_the_files_that_the_manifest_lists_and_asks_for_no_other(hub: Hub, client: Client) -> None:
    hub.add(NAME, files_of(NANO) | {"pytorch_model.bin": bytes(10**6), "notes/a.txt": b"a"})
    ran = client.run("pull", NAME)
    commit = hub.repositories[NAME].branches["main"]
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == f"{client.pulled}\n"
    assert ran.stderr.splitlines() == [
        f"pulled {NAME}, commit {commit[:12]}",
        f"now: slmx generate --bundle {NAME}",
    ]
    assert snapshot(client.pulled) == snapshot(NANO)
    assert hub.asked("HEAD")[0] == hub.asked("GET")[0] == "manifest.json"
    assert sorted(hub.asked("HEAD")[1:]) == sorted(hub.asked("GET")[1:]) == LISTED
    record = client.record
    assert record == {
        "hub": hub.address,
        "repository": NAME,
        "revision": "main",
        "commit": commit,
        "date": record["date"],
        "manifest_sha256": sha256_of(NANO / "manifest.json"),
        "file": None,
    }
    assert sorted(path.name for path in client.pulled.parent.iterdir()) == [".tales.pulled.json", "tales"]


@pytest.mark.slow
def test_its_name_works_where_a_path_does_also_without_the_client(client: Client) -> None:
    client.works("pull", NAME)
    story = load(NANO).generate("Once upon a time", max_tokens=8, seed=3).full_text + "\n"
    for name in (NAME, "tales"):
        assert client.run("generate", "Once upon a time", "--bundle", name, *STORY).stdout == story
        assert client.python([WITHOUT_CLIENT, name]).communicate()[0] == story


@pytest.mark.slow
def test_a_second_pull_downloads_nothing(hub: Hub, client: Client) -> None:
    client.works("pull", NAME)
    hub.requests.clear()
    before = client.record
    assert client.works("pull", NAME)[0] == f"{NAME} is up to date"
    assert hub.asked("GET") == []
    assert client.record == before
    commit = hub.repositories[NAME].branches["main"]
    client.works("pull", f"{NAME}@{commit}")
    hub.requests.clear()
    client.works("pull", f"{NAME}@{commit}", HF_HUB_OFFLINE="1")
    assert hub.requests == []


@pytest.mark.slow
def test_a_new_commit_replaces_the_bundle_and_brings_only_what_changed(hub: Hub, client: Client) -> None:
    client.works("pull", NAME)
    old = hub.repositories[NAME].branches["main"]
    new = hub.repositories[NAME].commit(files_of(MICRO))
    hub.requests.clear()
    assert client.works("pull", NAME)[0] == f"pulled {NAME}, commit {new[:12]}"
    assert snapshot(client.pulled) == snapshot(MICRO)
    assert client.record["commit"] == new
    assert "generation_config.json" not in hub.asked("GET"), "both bundles have the same one"
    assert client.works("pull", f"{NAME}@{old}")[0] == f"pulled {NAME}@{old}, commit {old[:12]}"
    assert snapshot(client.pulled) == snapshot(NANO)


@pytest.mark.slow
def test_an_old_copy_in_the_cache_is_not_taken_for_the_newest(hub: Hub, client: Client) -> None:
    client.works("pull", NAME)
    new = hub.repositories[NAME].commit(files_of(MICRO))
    hub.faults.status[f"/{NAME}/resolve/main/"] = 401  # then the client takes the manifest from its cache
    assert client.works("pull", NAME)[0] == f"pulled {NAME}, commit {new[:12]}"
    assert snapshot(client.pulled) == snapshot(MICRO)


@pytest.mark.slow
def test_a_branch_and_a_place_of_ones_own(hub: Hub, client: Client) -> None:
    hub.repositories[NAME].commit(files_of(MICRO), "refs/pr/1")
    assert client.works("pull", f"{NAME}@refs/pr/1", "--out", "mine")[1] == "now: slmx generate --bundle mine"
    assert snapshot(client.here / "mine") == snapshot(MICRO)
    assert json.loads(record_path(client.here / "mine").read_text("utf-8"))["revision"] == "refs/pr/1"
    assert not client.data.exists()
    client.works("pull", NAME, "--out", "mine")
    assert snapshot(client.here / "mine") == snapshot(NANO), "it came from the same repository, so it is replaced"


def test_a_place_that_holds_another_bundle_is_kept(client: Client) -> None:
    copy_of(MICRO, client.here / "mine")
    line = client.refuses("pull", NAME, "--out", "mine")
    assert line == f"mine: holds a bundle that was not pulled from {NAME}; choose another --out"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["notes.txt", "README.md"])
def test_a_file_that_was_added_or_changed_is_kept(hub: Hub, client: Client, name: str) -> None:
    client.works("pull", NAME)
    (client.pulled / name).write_text("mine", "utf-8")
    line = client.refuses("pull", NAME)
    assert line == (
        f"{client.pulled}: {name} was added or changed there, and slmx never replaces such a file; "
        "move the folder away, then pull again"
    )


@pytest.mark.slow
def test_a_missing_file_is_brought_again_and_a_damaged_copy_in_the_cache_too(hub: Hub, client: Client) -> None:
    client.works("pull", NAME)
    (client.pulled / MODEL).unlink()
    (cached,) = client.cache.rglob(Path(MODEL).name)
    content = cached.read_bytes()
    cached.resolve().write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    client.works("pull", NAME)
    assert snapshot(client.pulled) == snapshot(NANO)


def test_a_manifest_that_is_damaged_or_too_large_ends_it_before_another_file(hub: Hub, client: Client) -> None:
    hub.add(NAME, files_of(NANO) | {"manifest.json": b'{"format_version": 3}'})
    line = client.refuses("pull", NAME)
    assert line.startswith(f"{NAME}: manifest.json: not a usable bundle manifest")
    assert hub.asked("GET") == ["manifest.json"]
    hub.add(NAME, files_of(NANO) | {"manifest.json": b" " * (MAX_MANIFEST_BYTES + 1)})
    hub.requests.clear()
    assert client.refuses("pull", NAME) == (
        f"{NAME}: its manifest.json has 1,048,577 bytes, 1,048,576 at most; it was not downloaded"
    )
    assert hub.asked() == []


def test_a_repository_without_a_bundle(hub: Hub, client: Client) -> None:
    hub.add(NAME, {"config.json": b"{}"})
    assert client.refuses("pull", NAME) == (
        f"{NAME}: no manifest.json in this repository; it is no bundle of slmx; "
        "slmx import may read it, if it is a model of another program"
    )


@pytest.mark.parametrize(
    "name", ["nano", "a/b/c", "../up", "a/b@", "-x/y", "a/..", "a/b c", "a/b@../..", "a/b@x/../y", "a/b@/x"]
)
def test_what_is_no_name_of_a_repository_is_wrong_usage(client: Client, name: str) -> None:
    assert client.misused("pull", "--", name) == (
        f"{name}: no name of a repository; name it as OWNER/NAME or OWNER/NAME@REVISION"
    )


def test_a_file_of_another_size_ends_it_before_any_file(hub: Hub, client: Client) -> None:
    hub.add(NAME, files_of(NANO) | {MODEL: b"short"})
    assert client.refuses("pull", NAME) == (
        f"{NAME}: its {MODEL} has 5 bytes, and its manifest.json lists {len(files_of(NANO)[MODEL]):,}; "
        "nothing was kept; its owner must push it again"
    )
    assert hub.asked("GET") == ["manifest.json"]


def test_a_file_that_is_missing_ends_it_before_any_file(hub: Hub, client: Client) -> None:
    hub.add(NAME, {name: content for name, content in files_of(NANO).items() if name != MODEL})
    assert client.refuses("pull", NAME).startswith(f"{NAME}: no {MODEL} in this repository, which its manifest")
    assert hub.asked("GET") == ["manifest.json"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [MODEL, "README.md"])
def test_a_wrong_hash_is_refused_and_a_bundle_that_is_here_stays(hub: Hub, client: Client, name: str) -> None:
    content = files_of(NANO)[name]
    wrong = content[:-1] + bytes([content[-1] ^ 1])
    hub.add(NAME, files_of(NANO) | {name: wrong})
    expected = (
        f"{NAME}: its {name} is not the file that its manifest.json lists (SHA-256 differs); "
        "nothing was kept; its owner must push it again"
    )
    assert client.refuses("pull", NAME) == expected
    assert not client.data.exists()
    hub.repositories[NAME].commit(files_of(MICRO))
    client.works("pull", NAME)
    hub.repositories[NAME].commit(files_of(NANO) | {name: wrong})
    assert client.refuses("pull", NAME) == expected
    assert snapshot(client.pulled) == snapshot(MICRO)


@pytest.mark.slow
def test_what_was_wrong_and_is_pushed_again_can_be_pulled(hub: Hub, client: Client) -> None:
    hub.faults.wrong[MODEL] = bytes(len(files_of(NANO)[MODEL]))
    client.refuses("pull", NAME)
    hub.faults.wrong.clear()
    client.works("pull", NAME)
    assert snapshot(client.pulled) == snapshot(NANO)


def test_the_record_is_not_that_of_another_bundle(client: Client, tmp_path: Path) -> None:
    from runtimes.hub.record import Record, read_record, write_record

    bundle = tmp_path / "bundle"
    record = Record("https://hub", NAME, "main", "0" * 40, "2026-11-30T12:00:00+00:00", "1" * 64, "x.slmx")
    write_record(bundle, record)
    assert read_record(bundle, "1" * 64) == record
    assert read_record(bundle, "2" * 64) is None
    record_path(bundle).write_bytes(b'{"hub": 1}')
    assert read_record(bundle, "1" * 64) is None


def test_without_the_client_the_line_says_how_to_install_it(client: Client) -> None:
    code = f"import sys; sys.modules['huggingface_hub'] = None; {RUN}"
    out, err = client.python([code, "pull", NAME]).communicate()
    assert out == ""
    assert err.startswith("slmx: this command needs huggingface_hub: pip install ")
    assert err.endswith('[hub]"\n')


@pytest.mark.slow
def test_a_private_repository_needs_a_login(hub: Hub, client: Client) -> None:
    hub.add("me/secret", files_of(NANO), private=True)
    line = client.refuses("pull", "me/secret")
    assert line == (
        f"me/secret: {hub.address} has no such repository, or it is private: "
        "check the name, or log in with: hf auth login"
    )
    client.works("pull", "me/secret", HF_TOKEN=MEMBER)
    shutil.rmtree(client.data)
    token = client.cache / "token"
    token.write_text(MEMBER, "utf-8")
    client.works("pull", "me/secret")
