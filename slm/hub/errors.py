"""What can fail with the Hugging Face hub, as one line each.

The client is `huggingface_hub`. Its versions 0, 1 and 2 use different HTTP libraries, so the errors of these are known
by the name of their module.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from slm.console.errors import SlmxError, needs
from slm.console.plain_text import as_plain_text
from slm.hub.name import HubName
from slm.storage.disk import FULL

CUT = ("ChunkedEncodingError", "IncompleteRead", "RemoteProtocolError", "ReadError")
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


@contextmanager
def hub_errors(name: HubName, file: str | None = None) -> Iterator[None]:
    """Turns every failure of a call of `huggingface_hub` into one line. The block may hold nothing but such calls.

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
        is_full = error.errno in FULL
        advice = "make room there, or set HF_HOME to another disk" if is_full else "set HF_HOME to another folder"
        return HubError(name, f"cannot write {where} ({error.strerror}); {advice}")
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
