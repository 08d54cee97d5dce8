"""Downloads files of the Hugging Face hub.

The client is `huggingface_hub`, with its cache, its login and its environment variables (HF_ENDPOINT, HF_HUB_OFFLINE,
HF_HOME, HF_TOKEN).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from slm.console.errors import needs
from slm.hub.errors import HubCut, HubError, HubUnreachable, hub_errors
from slm.hub.name import HubName

# A download whose connection is cut is tried this many times. The client retries too, but not after every kind of cut.
TRIES = 3
PAUSE = 1.0  # seconds between two tries


@dataclass(frozen=True)
class Snapshot:
    """One commit of a repository. Each file is downloaded when it is asked for, unless it is in the cache.

    Attributes:
        name: The name that was asked for.
        commit: The hash of the commit.
        first: Path of the file that `open_snapshot` was given.
        folder: The folder of the commit in the cache. It holds the files that were downloaded.
        sizes: The size of each file in bytes, None where the hub does not tell it.
        offline: Why the cache is all there is; None if there is a connection.
    """

    name: HubName
    commit: str
    first: Path
    folder: Path
    sizes: Mapping[str, int | None]
    offline: HubUnreachable | None = None

    def holds(self, file: str) -> bool:
        """Returns whether the cache holds a file of this commit."""
        return (self.folder / file).is_file()

    def fetch(self, file: str, again: bool = False) -> Path:
        """Returns the path of a file in the cache, and downloads it first if it is not there. A cut download continues.

        Args:
            file: Its name in the repository.
            again: Whether to download it even if the cache holds it.

        Raises:
            HubError: The file is not on the hub, or cannot be downloaded.
            HubUnreachable: There is no connection, and the cache does not hold the file.
        """
        if self.offline is not None:
            if self.holds(file):
                return self.folder / file
            why = f"{self.offline.why}, and the cache holds only a part of it"
            raise HubUnreachable(self.name, why, self.offline.advice)
        if again:
            with hub_errors(self.name):
                (self.folder / file).unlink(missing_ok=True)
        return _download(self.name, file, self.commit, again=again)


def open_snapshot(name: HubName, first: str, most: int, missing: str) -> Snapshot:
    """Finds the commit of a name, and downloads its first file. Without a connection the cache must hold that file.

    Args:
        name: The repository and the revision.
        first: The file that lists what else is needed.
        most: The largest size of that file in bytes.
        missing: What to say of a repository that does not hold the file.

    Raises:
        HubUnreachable: There is no connection, and the cache does not hold the file.
        HubError: The hub refuses, or the file is missing or too large.
    """
    up = first.count("/")
    try:
        commit, sizes = find_commit(name)
    except HubUnreachable as error:
        try:
            path = _download(name, first, name.asked, offline=True)
        except HubUnreachable:
            raise HubUnreachable(name, f"{error.why}, and the cache holds no copy of it", error.advice) from None
        folder = path.parents[up]
        held = {
            file.relative_to(folder).as_posix(): file.stat().st_size for file in folder.rglob("*") if file.is_file()
        }
        return Snapshot(name, folder.name, path, folder, held, error)
    if first not in sizes:
        raise HubError(name, f"no {first} in this repository; {missing}")
    size = sizes[first]
    if size is not None and size > most:
        raise HubError(name, f"its {first} has {size:,} bytes, {most:,} at most; it was not downloaded")
    # The client finds the copy in the cache later, without a connection, only if it is asked for the branch now.
    path = _download(name, first, name.asked)
    if path.parents[up].name != commit:  # it is a newer one, or the copy of before because the hub did not answer
        path = _download(name, first, commit)
    return Snapshot(name, commit, path, path.parents[up], sizes)


def hub_address() -> str:
    """Returns the address of the hub, without a slash at its end."""
    with needs("hub"):
        from huggingface_hub import constants

    return str(constants.ENDPOINT)


def find_commit(name: HubName) -> tuple[str, dict[str, int | None]]:
    """Asks the hub for the commit of a name, and for the size of each file in it.

    Raises:
        HubUnreachable: There is no connection.
        HubError: The hub refuses.
    """
    with hub_errors(name):
        from huggingface_hub import HfApi, constants

        seconds = constants.HF_HUB_ETAG_TIMEOUT
        info = HfApi().model_info(name.repository, revision=name.asked, files_metadata=True, timeout=seconds)
    if info.sha is None:
        raise HubError(name, "the answer of the hub has no commit; check HF_ENDPOINT")
    return info.sha, {file.rfilename: file.size for file in info.siblings or ()}


def _download(name: HubName, file: str, revision: str, offline: bool = False, again: bool = False) -> Path:
    for _ in range(TRIES - 1):
        with suppress(HubCut):
            return _download_once(name, file, revision, offline, again)
        time.sleep(PAUSE)
    return _download_once(name, file, revision, offline, again)


def _download_once(name: HubName, file: str, revision: str, offline: bool, again: bool) -> Path:
    with hub_errors(name, file):
        from huggingface_hub import hf_hub_download

        return Path(
            hf_hub_download(name.repository, file, revision=revision, local_files_only=offline, force_download=again)
        )
