"""Files of the Hugging Face hub, with one line for each way in which a transfer can fail.

The client is `huggingface_hub`, with its cache, its login and its environment variables (HF_ENDPOINT, HF_HUB_OFFLINE,
HF_HOME, HF_TOKEN). Its versions 0, 1 and 2 use different HTTP libraries, so the errors of these are known by the name
of their module.
"""

from __future__ import annotations

import os
import re
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from slm.errors import SlmxError, needs
from slm.json_reader import as_plain_text, is_plain_name

NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", re.ASCII)
FULL_HASH = re.compile("[0-9a-f]{40}")
NEWEST = "main"
# A download whose connection is cut is tried so often. The client does so too, but not for every way of a cut.
TRIES = 3
PAUSE = 1.0  # seconds between two tries
CUT = ("ChunkedEncodingError", "IncompleteRead", "RemoteProtocolError", "ReadError", "ReadTimeout")
HTTP_LIBRARIES = ("requests", "urllib3", "httpx", "httpx2")
LOG_IN = "log in with: hf auth login"
# The client reads both when it is imported. It warns about each try that it repeats; the last failure becomes an error
# here. It shows the progress of uploads also where there is no terminal.
os.environ.setdefault("HF_HUB_VERBOSITY", "error")
if sys.stderr is None or not sys.stderr.isatty():
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


class HubError(SlmxError):
    """The hub refuses something, or a transfer failed.

    Attributes:
        reason: What is wrong and what to do, without the name of the repository.
    """

    def __init__(self, name: HubName, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.reason = reason


class HubUnreachable(HubError):
    """There is no connection to the hub, or HF_HUB_OFFLINE is set.

    Attributes:
        why: What is wrong, without what to do.
    """

    def __init__(self, name: HubName, why: str, advice: str) -> None:
        super().__init__(name, f"{why}; {advice}")
        self.why, self.advice = why, advice


class HubCut(HubError):
    """The connection ended in the middle of a file. What came before is in the cache."""


@dataclass(frozen=True)
class HubName:
    """The name of a repository on the hub.

    Attributes:
        repository: OWNER/NAME.
        revision: A branch, a tag or the hash of a commit; None is the newest commit of the branch `main`.
    """

    repository: str
    revision: str | None = None

    @classmethod
    def find(cls, text: str) -> HubName | None:
        """Reads OWNER/NAME or OWNER/NAME@REVISION; None if a text is neither."""
        match = NAME.fullmatch(text)
        if match is None or not all(is_plain_name(part) for part in match[1].split("/")):
            return None
        return cls(match[1], match[2])

    def __str__(self) -> str:
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"

    @property
    def asked(self) -> str:
        """The revision, or the branch that stands for None."""
        return self.revision or NEWEST


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
        for _ in range(TRIES - 1):
            with suppress(HubCut):
                return _download(self.name, file, self.commit, again=again)
            time.sleep(PAUSE)
        return _download(self.name, file, self.commit, again=again)


def open_snapshot(name: HubName, first: str, most: int, missing: str) -> Snapshot:
    """Finds the commit of a name, and downloads its first file. Without a connection the cache must hold that file.

    Args:
        name: The repository and the revision.
        first: The file that tells what else is needed.
        most: The largest size of that file in bytes.
        missing: What to say of a repository that does not hold the file.

    Raises:
        HubUnreachable: There is no connection, and the cache does not hold the file.
        HubError: The hub refuses, or the file is missing or too large.
    """
    up = first.count("/")
    try:
        commit, sizes = look(name)
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
    if (
        path.parents[up].name != commit
    ):  # it changed meanwhile, or it is the copy of before, because the hub did not answer
        path = _download(name, first, commit)
    return Snapshot(name, commit, path, path.parents[up], sizes)


def hub_address() -> str:
    """Returns the address of the hub, without a slash at its end."""
    with needs("hub"):
        from huggingface_hub import constants

    return str(constants.ENDPOINT)


def look(name: HubName) -> tuple[str, dict[str, int | None]]:
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
    with hub_errors(name, file):
        from huggingface_hub import hf_hub_download

        return Path(
            hf_hub_download(name.repository, file, revision=revision, local_files_only=offline, force_download=again)
        )


@contextmanager
def hub_errors(name: HubName, file: str | None = None) -> Iterator[None]:
    """Within it, calls of `huggingface_hub` fail with one line. It may hold nothing but such calls.

    Args:
        name: The repository that is asked for.
        file: The file that is asked for.

    Raises:
        HubUnreachable: There is no connection.
        HubError: Any other failure that is not a mistake in slmx.
        SlmxError: `huggingface_hub` is not installed.
    """
    with needs("hub"):
        import huggingface_hub  # noqa: F401
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        found = _translate(error, name, file)
        if found is None:
            raise
        raise found from error


def _translate(error: BaseException, name: HubName, file: str | None) -> HubError | None:
    """Makes the line for an error of the client; None for one that cannot be foreseen."""
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    if isinstance(error, errors.LocalEntryNotFoundError):  # the cache is empty, because of the cause
        return _translate(error.__cause__ or errors.OfflineModeIsEnabled(""), name, file)
    if isinstance(error, errors.HFValidationError):
        return HubError(name, "no name of a repository; name one as OWNER/NAME")
    if isinstance(error, errors.GatedRepoError):
        return HubError(name, f"its owner limits access: ask for it at {hub}/{name.repository}, then {LOG_IN}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return HubError(name, f"{hub} has no such repository, or it is private: check the name, or {LOG_IN}")
    if isinstance(error, errors.RevisionNotFoundError):
        return HubError(name, f"it has no revision {name.asked}; check its branches and tags on {hub}")
    if isinstance(error, errors.EntryNotFoundError):
        return HubError(name, f"no {file or 'such file'} in this repository; its owner must push it again, whole")
    response = getattr(error, "response", None)  # also of an error of the HTTP library
    if response is not None:
        return HubError(name, _refusal(response.status_code, str(getattr(error, "server_message", None) or "")))
    if isinstance(error, errors.OfflineModeIsEnabled):
        return HubUnreachable(name, "HF_HUB_OFFLINE is set", "unset it where there is a connection")
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError | TimeoutError):
        where = error.filename if isinstance(error.filename, str) else constants.HF_HUB_CACHE
        return HubError(
            name, f"cannot write {where} ({error.strerror}); make room there, or set HF_HOME to another disk"
        )
    if isinstance(error, errors.FileMetadataError | ValueError | KeyError):
        return HubError(name, f"{hub} does not answer as a hub does; check HF_ENDPOINT and the connection")
    kind = type(error).__name__
    if kind in CUT or (isinstance(error, OSError) and "Consistency check failed" in str(error)):
        return HubCut(name, f"the connection to {hub} was cut; run the same command again, it goes on from there")
    library = type(error).__module__.split(".")[0]
    if library in HTTP_LIBRARIES or isinstance(error, ConnectionError | TimeoutError):
        certificate = "CERTIFICATE" in str(error).upper()
        what = "has a certificate that is not trusted here" if certificate else "cannot be reached"
        return HubUnreachable(name, f"{hub} {what}", "check the connection, and HF_ENDPOINT if it is set")
    if isinstance(error, RuntimeError):  # of an upload, or of hf_xet
        cause = None if error.__cause__ is None else _translate(error.__cause__, name, file)
        return cause or HubError(name, f"the transfer failed ({_first_line(str(error))}); run the same command again")
    return None


def _refusal(status: int, message: str) -> str:
    """Returns the line for an answer of the hub that has no error of its own in the client."""
    if status == 401:
        return f"the hub does not accept your login; {LOG_IN}"
    if status == 403:
        return "your login has no right to do this; take a token that has it, and " + LOG_IN
    if status == 412:
        return "it changed on the hub a moment ago; run the same command again"
    if status == 429:
        return "the hub takes no more requests for now; wait some minutes"
    said = f" ({_first_line(message)})" if message else ""
    what_next = "try it later" if status >= 500 else "check the name, and HF_ENDPOINT if it is set"
    return f"the hub answers with error {status}{said}; {what_next}"


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return as_plain_text(lines[0])[:200] if lines else "no reason is given"
