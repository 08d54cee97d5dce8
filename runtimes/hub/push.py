"""`slmx push`: sends a bundle to a repository on the hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runtimes.bundle.manifest import MAX_MANIFEST_BYTES, SIGNATURE_FILE, Manifest
from runtimes.bundle.store import Bundle, FolderStore
from runtimes.pack.envelope import read_signature
from slm.console.errors import SlmxError, UsageError
from slm.console.notice import Log
from slm.hub.client import find_commit, hub_address, open_snapshot
from slm.hub.errors import LOG_IN, HubError, hub_errors
from slm.hub.name import HubName, is_revision
from slm.storage.file_names import MANIFEST_FILE

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

# The hub makes this file, which says which files are stored with Git LFS.
OF_THE_HUB = ".gitattributes"


@dataclass(frozen=True)
class PushSettings:
    """What to send and where to.

    Attributes:
        bundle: The folder or the archive.
        name: OWNER/NAME.
        revision: The branch; None is `main`. A missing branch is made.
        private: Whether a repository that is made now is private.
        force: Whether to replace what is not a bundle of slmx.
    """

    bundle: Path
    name: str
    revision: str | None = None
    private: bool = False
    force: bool = False


def push_bundle(settings: PushSettings, log: Log) -> str:
    """Sends a bundle. Afterwards the branch holds exactly its files, and its signature if it has one, in one commit.

    Args:
        settings: What to send and where to.
        log: Called with one line about what was done.

    Returns:
        The address of the page of the repository.

    Raises:
        UsageError: The name is none of a repository, or the revision is no name of a branch.
        HubError: There is no login, or the hub cannot be reached or refuses.
        SlmxError: The bundle is not whole, or the repository holds something else. Nothing was sent.
    """
    name = HubName.find(settings.name)
    if name is None or name.revision is not None:
        raise UsageError(f"{settings.name}: no name of a repository; name it as OWNER/NAME, a branch with --revision")
    if settings.revision is not None and not is_revision(settings.revision):
        raise UsageError(f"--revision {settings.revision!a}: no name of a branch; name one such as main or v1.0")
    name = HubName(name.repository, settings.revision)
    bundle = Bundle.open(settings.bundle)
    if problems := bundle.problems():
        raise SlmxError(f"{problems[0]}; nothing was sent")
    with hub_errors(name):
        from huggingface_hub import HfApi, get_token

        token = get_token()
    if token is None:
        raise HubError(name, f"only its owner can push, and you are not logged in; {LOG_IN}")
    api = HfApi()
    with hub_errors(name):
        api.create_repo(name.repository, private=settings.private or None, exist_ok=True)
        if settings.revision is not None:
            api.create_branch(name.repository, branch=settings.revision, exist_ok=True)
    commit, there = find_commit(name)
    if not settings.force and (foreign := _foreign(name, there)):
        raise HubError(name, f"holds {foreign}, which is not of a bundle of slmx; --force replaces all that is there")
    with hub_errors(name):
        new = api.create_commit(
            name.repository,
            _operations(bundle, there),
            commit_message=f"{bundle.manifest.title}, a bundle of slmx ({bundle.manifest_sha256[:12]})",
            revision=name.asked,
            parent_commit=commit,
        ).oid
    log(f"{name} holds it already" if new == commit else f"pushed to {name}, commit {new[:12]}")
    return f"{hub_address()}/{name.repository}" + ("" if name.revision is None else f"/tree/{name.revision}")


def _foreign(name: HubName, there: Mapping[str, int | None]) -> str | None:
    """Finds a file in a repository that is not of a bundle of slmx, or was changed there; None if there is none."""
    files = {file: size for file, size in there.items() if file != OF_THE_HUB}
    if not files or MANIFEST_FILE not in files:
        return next(iter(files), None)
    try:
        content = open_snapshot(
            name, MANIFEST_FILE, MAX_MANIFEST_BYTES, "run the same command again"
        ).first.read_bytes()
        listed = Manifest.read(content, MANIFEST_FILE).files
    except HubError:
        raise
    except SlmxError:
        return MANIFEST_FILE
    for file, size in files.items():
        if file not in (MANIFEST_FILE, SIGNATURE_FILE) and (
            file not in listed or size not in (None, listed[file].bytes)
        ):
            return file
    return None


def _operations(bundle: Bundle, there: Mapping[str, int | None]) -> list[CommitOperationAdd | CommitOperationDelete]:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    contents: dict[str, Path | bytes] = {MANIFEST_FILE: bundle.manifest_bytes()}
    for file in bundle.manifest.files:
        contents[file] = bundle.store.path(file) if isinstance(bundle.store, FolderStore) else bundle.read(file)
    if signature := read_signature(bundle.signature_path):
        contents[SIGNATURE_FILE] = signature
    removes = [file for file in there if file not in contents and file != OF_THE_HUB]
    return [
        *(CommitOperationDelete(path_in_repo=file) for file in removes),
        *(CommitOperationAdd(path_in_repo=file, path_or_fileobj=content) for file, content in contents.items()),
    ]
