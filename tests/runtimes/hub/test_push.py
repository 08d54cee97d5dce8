"""`slmx push` makes a branch hold exactly the files of a whole bundle, and replaces nothing that is not one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.bundles import copy_of, snapshot
from tests.hubs import MICRO, MODEL, NANO, Client, files_of
from tests.runtimes.hub.hub_server import GIT_ATTRIBUTES, MEMBER, READER, Hub

MINE = "me/mine"
OWNER = {"HF_TOKEN": MEMBER}


def held(hub: Hub, branch: str = "main") -> dict[str, bytes]:
    """What the repository holds, without the file that the hub makes."""
    files = dict(hub.repositories[MINE].files(branch))
    assert files.pop(".gitattributes") == GIT_ATTRIBUTES
    return files


@pytest.mark.slow
def test_a_pushed_bundle_is_the_one_that_is_pulled(hub: Hub, client: Client) -> None:
    bundle = copy_of(NANO, client.here / "bundles" / "tales")
    (bundle / "verification.json").write_text("{}")
    ran = client.run("push", "tales", MINE, **OWNER)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == f"{hub.address}/{MINE}\n"
    commit = hub.repositories[MINE].branches["main"]
    assert ran.stderr.splitlines() == [f"pushed to {MINE}, commit {commit[:12]}", f"now: slmx pull {MINE}"]
    assert held(hub) == files_of(NANO), "the model card README.md is one of them"
    assert not hub.repositories[MINE].private
    assert client.works("push", "tales", MINE, **OWNER)[0] == f"{MINE} holds it already"
    assert hub.repositories[MINE].branches["main"] == commit
    client.works("pull", MINE, "--out", "back")
    assert snapshot(client.here / "back") == snapshot(NANO)


@pytest.mark.slow
def test_another_bundle_replaces_all_files_of_the_one_before(hub: Hub, client: Client, tmp_path: Path) -> None:
    hub.add(MINE, files_of(MICRO) | {"onnx/model.onnx": b"of an earlier bundle"})
    line = client.refuses("push", "nano", MINE, **OWNER)
    assert line == (
        f"{MINE}: holds onnx/model.onnx, which is not of a bundle of slmx; --force replaces all that is there"
    )
    hub.add(MINE, files_of(MICRO))
    client.works("push", "nano", MINE, **OWNER)
    assert held(hub) == files_of(NANO)
    archive = Path(shutil.make_archive(str(tmp_path / "micro"), "zip", MICRO))
    assert zipfile.is_zipfile(archive)
    client.works("push", archive, MINE, **OWNER)
    assert held(hub) == files_of(MICRO)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"README.md": b"# Mine"}, "README.md"),
        ({"manifest.json": b"{}"}, "manifest.json"),
        (files_of(NANO) | {"README.md": b"# Changed on the page of the hub"}, "README.md"),
    ],
)
def test_what_is_no_bundle_is_replaced_with_force_only(
    hub: Hub, client: Client, files: dict[str, bytes], name: str
) -> None:
    before = hub.add(MINE, files).branches["main"]
    line = client.refuses("push", "micro", MINE, **OWNER)
    assert line == f"{MINE}: holds {name}, which is not of a bundle of slmx; --force replaces all that is there"
    assert hub.repositories[MINE].branches["main"] == before
    client.works("push", "micro", MINE, "--force", **OWNER)
    assert held(hub) == files_of(MICRO)


@pytest.mark.slow
def test_a_private_repository_and_a_branch(hub: Hub, client: Client) -> None:
    client.works("push", "nano", MINE, "--private", **OWNER)
    assert hub.repositories[MINE].private
    ran = client.run("push", "micro", MINE, "--revision", "larger", **OWNER)
    assert ran.stdout == f"{hub.address}/{MINE}/tree/larger\n"
    assert ran.stderr.endswith(f"now: slmx pull {MINE}@larger\n")
    assert (held(hub), held(hub, "larger")) == (files_of(NANO), files_of(MICRO))


@pytest.mark.slow
@pytest.mark.parametrize("spoil", ["changed", "missing", "extra"])
def test_a_bundle_that_is_not_whole_is_not_sent(hub: Hub, client: Client, spoil: str) -> None:
    bundle = copy_of(NANO, client.here / "mine")
    if spoil == "missing":
        (bundle / MODEL).unlink()
    else:
        (bundle / ("README.md" if spoil == "changed" else "notes.txt")).write_text("mine")
    line = client.refuses("push", "mine", MINE, **OWNER)
    assert line.startswith("mine")
    assert line.endswith("; nothing was sent")
    assert hub.requests == []


def test_without_a_login_the_line_says_how_to_log_in(hub: Hub, client: Client) -> None:
    assert client.refuses("push", "nano", MINE) == (
        f"{MINE}: only its owner can push, and you are not logged in; log in with: hf auth login"
    )
    assert hub.requests == []


@pytest.mark.slow
def test_the_login_of_the_client_is_enough(hub: Hub, client: Client) -> None:
    log_in = [str(Path(sys.executable).with_name("hf")), "auth", "login", "--token", MEMBER]
    subprocess.run(log_in, env=os.environ | client.env, check=True, capture_output=True, timeout=60)
    client.works("push", "nano", MINE)
    assert held(hub) == files_of(NANO)


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("hf_old", "the hub does not accept your login; log in with: hf auth login"),
        (READER, "your login has no right to do this; take a token that has it, and log in with: hf auth login"),
    ],
)
def test_a_login_that_is_not_enough(hub: Hub, client: Client, token: str, reason: str) -> None:
    assert client.refuses("push", "nano", MINE, HF_TOKEN=token) == f"{MINE}: {reason}"
    assert MINE not in hub.repositories


def test_a_commit_that_came_between_is_not_overwritten(hub: Hub, client: Client) -> None:
    hub.add(MINE, files_of(MICRO))
    hub.faults.status[f"/api/models/{MINE}/commit"] = 412
    line = client.refuses("push", "nano", MINE, **OWNER)
    assert line == f"{MINE}: it changed on the hub a moment ago; run the same command again"


def test_an_upload_that_the_hub_refuses(hub: Hub, client: Client) -> None:
    hub.faults.status["/upload"] = 403
    line = client.refuses("push", "nano", MINE, **OWNER)
    assert line.startswith(f"{MINE}: your login has no right to do this")
    assert held(hub) == {}


@pytest.mark.parametrize("revision", ["../x", "a//b", "a b", "-x", "a/.b", "x.lock"])
def test_what_is_no_name_of_a_branch_is_wrong_usage(hub: Hub, client: Client, revision: str) -> None:
    assert client.misused("push", "nano", MINE, f"--revision={revision}", **OWNER) == (
        f"--revision {revision!a}: no name of a branch; name one such as main or v1.0"
    )
    assert MINE not in hub.repositories


@pytest.mark.parametrize("name", ["mine", f"{MINE}@main"])
def test_what_is_no_name_of_a_repository_is_wrong_usage(client: Client, name: str) -> None:
    assert client.misused("push", "nano", name, **OWNER) == (
        f"{name}: no name of a repository; name it as OWNER/NAME, a branch with --revision"
    )
