"""Whatever fails in `slmx pull`: one line, nothing half-written, and the same command goes on."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import termios
from pathlib import Path

import pytest

from tests.bundles import snapshot
from tests.hubs import LARGE, MICRO, MODEL, NAME, NANO, RUN, Client, files_of, with_large_file
from tests.runtimes.hub.hub_server import READER, Hub
from tests.waiting import wait_until

NOWHERE = "http://127.0.0.1:9"
LIMITED = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000,) * 2); {RUN}"


@pytest.mark.slow
def test_a_connection_that_is_cut_continues_where_it_was(hub: Hub, client: Client, tmp_path: Path) -> None:
    hub.add(NAME, with_large_file(NANO, tmp_path / "large"))
    hub.faults.cut[LARGE], hub.faults.cuts_left = 15_000_000, 1
    assert client.works("pull", NAME)[0].startswith(f"pulled {NAME}")
    assert ranges(hub) == [None, f"bytes={10 * 2**20}-"]
    assert snapshot(client.pulled) == snapshot(tmp_path / "large")


def ranges(hub: Hub) -> list[str | None]:
    """What was asked for of the large file."""
    return [request.range for request in hub.requests if request.path.endswith(LARGE) and request.method == "GET"]


@pytest.mark.slow
def test_a_connection_that_is_cut_each_time_is_one_line_and_the_next_pull_goes_on(hub: Hub, client: Client) -> None:
    hub.faults.cut[MODEL] = 0
    assert client.refuses("pull", NAME) == (
        f"{NAME}: the connection to {hub.address} was cut; run the same command again, it goes on from there"
    )
    assert not client.data.exists()
    hub.faults.cut.clear()
    hub.requests.clear()
    client.works("pull", NAME)
    assert snapshot(client.pulled) == snapshot(NANO)
    assert "config.json" not in hub.asked("GET"), "it had come before"


@pytest.mark.slow
def test_a_pull_that_was_killed_leaves_no_bundle_and_the_next_one_goes_on(
    hub: Hub, client: Client, tmp_path: Path
) -> None:
    from huggingface_hub import __version__

    hub.add(NAME, with_large_file(NANO, tmp_path / "large"))
    hub.faults.hang[LARGE] = 15_000_000
    pulling = client.start("pull", NAME)
    assert hub.faults.hangs.wait(30)
    wait_until(lambda: any(path.stat().st_size for path in client.cache.rglob("*.incomplete")))
    pulling.send_signal(signal.SIGKILL)
    pulling.communicate()
    assert not client.pulled.exists()
    hub.faults.hang.clear()
    hub.requests.clear()
    client.works("pull", NAME)
    assert snapshot(client.pulled) == snapshot(tmp_path / "large")
    assert sorted(path.name for path in client.pulled.parent.iterdir()) == [".tales.pulled.json", "tales"]
    assert "config.json" not in hub.asked("GET"), "it had come before"
    (asked,) = ranges(hub)
    # Later versions of the client begin a file again after a kill.
    assert re.fullmatch(r"bytes=[1-9]\d{6,}-" if __version__.startswith("0.") else "None", str(asked))


@pytest.mark.slow
def test_of_two_pulls_at_once_the_second_one_waits_and_downloads_nothing(hub: Hub, client: Client) -> None:
    hub.faults.hang[MODEL] = 900_000
    first = client.start("pull", NAME)
    assert hub.faults.hangs.wait(30)
    second = client.start("pull", NAME)
    assert second.stderr is not None
    assert second.stderr.readline().endswith("waiting for it\n")
    asked = len(hub.requests)
    hub.faults.release.set()
    assert first.communicate()[0] == second.communicate()[0] == f"{client.pulled}\n"
    assert (first.returncode, second.returncode) == (0, 0)
    assert hub.asked("GET").count("manifest.json") == 1
    assert len(hub.requests) > asked
    assert snapshot(client.pulled) == snapshot(NANO)


def test_without_a_network_and_without_a_copy(hub: Hub, client: Client) -> None:
    assert client.refuses("pull", NAME, HF_ENDPOINT=NOWHERE) == (
        f"{NAME}: {NOWHERE} cannot be reached, and the cache holds no copy of it; "
        "check the connection, and HF_ENDPOINT if it is set"
    )
    assert client.refuses("pull", NAME, HF_HUB_OFFLINE="1") == (
        f"{NAME}: HF_HUB_OFFLINE is set, and the cache holds no copy of it; unset it where there is a connection"
    )
    assert hub.requests == []


@pytest.mark.slow
def test_without_a_network_the_copies_of_before_are_enough(hub: Hub, client: Client) -> None:
    client.works("pull", NAME)
    commit = hub.repositories[NAME].branches["main"][:12]
    away = {"HF_ENDPOINT": NOWHERE}
    assert client.works("pull", NAME, **away)[0] == f"{NAME}: {NOWHERE} cannot be reached; the copy that is here stays"
    assert client.works("pull", NAME, "--out", "second", **away)[0] == (
        f"pulled {NAME}, commit {commit} from the cache, because {NOWHERE} cannot be reached"
    )
    assert snapshot(client.here / "second") == snapshot(NANO)
    empty = away | {"HF_HOME": str(client.cache / "empty")}
    assert client.works("pull", NAME, **empty)[0].endswith("the copy that is here stays")
    client.works("pull", NAME, "--out", "third", HF_HOME=str(client.cache / "second"))
    new = hub.repositories[NAME].commit(files_of(MICRO))
    client.works("pull", NAME)
    old = away | {"HF_HOME": str(client.cache / "second")}
    assert client.works("pull", NAME, **old)[0].endswith("the copy that is here stays"), "it is newer than the cache"
    assert client.record["commit"] == new
    assert client.refuses("pull", f"{NAME}@other", **empty).startswith(
        f"{NAME}@other: {NOWHERE} cannot be reached, and"
    )
    (client.pulled / MODEL).unlink()
    assert client.refuses("pull", NAME, **empty).startswith(f"{NAME}: {NOWHERE} cannot be reached, and the cache")


@pytest.mark.slow
def test_without_a_network_a_part_in_the_cache_is_not_enough(hub: Hub, client: Client) -> None:
    hub.faults.wrong[MODEL] = bytes(len(files_of(NANO)[MODEL]))
    client.refuses("pull", NAME)
    assert client.refuses("pull", NAME, HF_HUB_OFFLINE="1") == (
        f"{NAME}: HF_HUB_OFFLINE is set, and {MODEL} in the cache is damaged; unset it where there is a connection"
    )
    (cached,) = client.cache.rglob(Path(MODEL).name)
    cached.unlink()
    assert client.refuses("pull", NAME, HF_HUB_OFFLINE="1") == (
        f"{NAME}: HF_HUB_OFFLINE is set, and the cache holds only a part of it; unset it where there is a connection"
    )


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "the hub does not accept your login; log in with: hf auth login"),
        (403, "your login has no right to do this; take a token that has it, and log in with: hf auth login"),
        (429, "the hub takes no more requests for now; wait some minutes"),
        (503, "the hub answers with error 503 (the test answers 503); try it later"),
        (418, "the hub answers with error 418 (the test answers 418); check the name, and HF_ENDPOINT if it is set"),
    ],
)
def test_a_refusal_is_one_line(hub: Hub, client: Client, status: int, reason: str) -> None:
    hub.faults.status["/api/models/"] = status
    assert client.refuses("pull", NAME) == f"{NAME}: {reason}"


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_of_a_file_is_one_line_too(hub: Hub, client: Client, status: int) -> None:
    hub.faults.status[f"/{NAME}/resolve/"] = status
    assert client.refuses("pull", NAME).startswith(f"{NAME}: ")


@pytest.mark.slow
def test_a_hub_that_is_down_for_a_moment_is_asked_again(hub: Hub, client: Client) -> None:
    hub.faults.status[f"/{NAME}/resolve/"] = 503
    pulling = client.start("pull", NAME)
    wait_until(lambda: bool(hub.asked("HEAD")))
    hub.faults.status.clear()
    assert pulling.communicate()[0] == f"{client.pulled}\n"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_pull_that_is_stopped_leaves_nothing(hub: Hub, client: Client, number: int, code: int) -> None:
    hub.faults.hang[MODEL] = 1000
    pulling = client.start("pull", NAME)
    assert hub.faults.hangs.wait(30)
    pulling.send_signal(number)
    assert pulling.communicate()[0] == ""
    assert pulling.returncode == code
    assert not client.data.exists()


def test_a_token_that_is_not_valid(client: Client) -> None:
    line = client.refuses("pull", NAME, HF_TOKEN="hf_old")
    assert line == f"{NAME}: the hub does not accept your login; log in with: hf auth login"


def test_a_repository_or_a_revision_that_is_not_there(hub: Hub, client: Client) -> None:
    assert client.refuses("pull", "someone/nothing") == (
        f"someone/nothing: {hub.address} has no such repository, or it is private: "
        "check the name, or log in with: hf auth login"
    )
    assert client.refuses("pull", f"{NAME}@nowhere") == (
        f"{NAME}@nowhere: it has no revision nowhere; check its branches and tags on {hub.address}"
    )


@pytest.mark.parametrize("token", ["", READER])
def test_a_repository_to_which_the_owner_limits_access(hub: Hub, client: Client, token: str) -> None:
    hub.add("meta/gated", files_of(NANO), gated=True)
    assert client.refuses("pull", "meta/gated", HF_TOKEN=token) == (
        f"meta/gated: its owner limits access: ask for it at {hub.address}/meta/gated, then log in with: hf auth login"
    )


def test_an_address_that_is_no_hub(hub: Hub, client: Client) -> None:
    line = client.refuses("pull", NAME, HF_ENDPOINT=f"{hub.address}/nowhere")
    assert line.startswith(f"{NAME}: the hub answers with error 404 (no such address)")


def test_a_home_that_cannot_be_written(client: Client) -> None:
    file = client.here / "file"
    file.write_text("not a folder")
    assert client.refuses("pull", NAME, XDG_DATA_HOME=str(file)) == (
        f"{file}/slmx/bundles/{NAME}: cannot write (Not a directory); nothing was changed there; "
        "use another folder, with --out or XDG_DATA_HOME"
    )
    line = client.refuses("pull", NAME, HF_HOME=str(file))
    assert line.startswith(f"{NAME}: cannot write {file}")
    assert line.endswith("(Not a directory); set HF_HOME to another folder")


@pytest.mark.slow
def test_a_full_disk(hub: Hub, client: Client) -> None:
    out, err = client.python([LIMITED, "pull", NAME]).communicate()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(f"slmx: {NAME}: cannot write {client.cache}")
    assert line.endswith("(File too large); make room there, or set HF_HOME to another disk")
    assert not client.data.exists()
    client.works("pull", NAME)
    out, err = client.python([LIMITED, "pull", NAME, "--out", "second"]).communicate()
    said = "nothing was changed there; free space there, or use another folder"
    assert (out, err) == ("", f"slmx: second: cannot write (File too large); {said}\n")
    assert list(client.here.iterdir()) == []


@pytest.mark.slow
def test_a_terminal_shows_the_progress_of_a_download(client: Client) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    pulling = client.python([RUN, "pull", NAME], stderr=theirs)
    os.close(theirs)
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    assert pulling.wait() == 0
    assert re.search(rb"model_int8.onnx: +100%.*1.89M/1.89M", shown)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # nobody has the other side open
        return b""
