"""The log: one record on each line of stderr, without prompts and without keys."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone

from slm.console.counted import counted
from slm.console.errors import SlmxError
from slm.storage.system_errors import system_line

LOG = logging.getLogger("slmx.serve")
LONGEST = 200


@dataclass(frozen=True)
class Entry:
    """What is logged of a request.

    Attributes:
        client: The address of the client.
        method: The method, or `-` if the request was refused before it was read.
        path: The path without the query, as it was sent, or `-`.
        status: The status of the answer. 499: the client was gone before.
        seconds: From the end of the headers to the end of the answer.
        tokens: Tokens written; None if the request wrote no story.
        request: The id of the request, which the answer has as x-request-id, or `-`.
        outcome: The code of the error that ended a stream, whose status was sent before, or that refused a request
            before it was read; else None.
    """

    client: str
    method: str
    path: str
    status: int
    seconds: float
    tokens: int | None
    request: str
    outcome: str | None


def tell(event: str, line: str, level: int = logging.INFO, **fields: object) -> None:
    """Writes a record.

    Args:
        event: What happened, for JSON lines.
        line: The record as a line of text.
        level: A level of `logging`.
        **fields: The record as the fields of JSON lines; without any, they have the line as `message`.
    """
    LOG.log(level, "%s", line, extra={"event": event, "fields": fields})


def log_request(entry: Entry) -> None:
    """Writes the record of a request."""
    status = f"{entry.status}" if entry.outcome is None else f"{entry.status} {entry.outcome}"
    tokens = "" if entry.tokens is None else f" {counted(entry.tokens, 'token')}"
    milliseconds = round(1000 * entry.seconds, 1)
    line = f"{entry.client} {entry.method} {entry.path} {status} {milliseconds} ms{tokens} {entry.request}"
    fields = {name: value for name, value in asdict(entry).items() if value is not None and name != "seconds"}
    tell("request", line, **fields, ms=milliseconds)


def plain_path(raw_path: bytes) -> str:
    """Returns a path for the log, without the query."""
    return printable(raw_path[: LONGEST + 1].partition(b"?")[0].decode("ascii", "backslashreplace"))


def printable(text: str) -> str:
    """Returns what a client sent for the log: printable ASCII without spaces, and cut."""
    shown = "".join(char if "!" <= char <= "~" else "?" for char in text)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."


class JsonLines(logging.Formatter):
    """Writes each record as one JSON object on one line, with `time`, `level` and `event`."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line of a record. Records of libraries have the event `message`."""
        at = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        event = getattr(record, "event", "message")
        found = {"time": at, "level": record.levelname.lower(), "event": event}
        found |= getattr(record, "fields", None) or {"message": record.getMessage()}
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return json.dumps(found)


@contextmanager
def log_to_stderr(as_json: bool) -> Iterator[None]:
    """Sends the log, warnings and the errors of threads to stderr inside the block.

    Args:
        as_json: Whether each line is a JSON object. An error that leaves the block is then a record too.

    Raises:
        SystemExit: With `as_json`, instead of an error.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if as_json else logging.Formatter("%(asctime)s %(message)s"))
    root = logging.getLogger()
    # The warnings of uvicorn are about requests that are refused, which have their own records.
    levels = {root: logging.WARNING, LOG: logging.INFO, logging.getLogger("uvicorn.error"): logging.ERROR}
    before = {logger: logger.level for logger in levels}
    others = root.handlers, logging.raiseExceptions, threading.excepthook
    for logger, level in levels.items():
        logger.setLevel(level)
    root.handlers, threading.excepthook = [handler], _log_thread_error
    logging.raiseExceptions = False  # a log that nobody reads must not stop the server
    logging.captureWarnings(True)
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if not as_json:
            raise
        raise SystemExit(_log_failure(error)) from None
    finally:
        logging.captureWarnings(False)
        root.handlers, logging.raiseExceptions, threading.excepthook = others
        for logger, level in before.items():
            logger.setLevel(level)


def _log_failure(error: BaseException) -> int:
    """Writes the record of an error that ends the command, and returns the exit code."""
    if isinstance(error, SlmxError):
        tell("failed", str(error), logging.ERROR)
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        tell("failed", "stopped", logging.ERROR)
    elif isinstance(error, OSError):
        tell("failed", system_line(error), logging.ERROR)
    else:
        LOG.error("internal error", exc_info=error, extra={"event": "failed"})
    return 1


def _log_thread_error(hook: threading.ExceptHookArgs) -> None:
    """Writes the record of an error that ended a thread."""
    LOG.error("the thread %s ended", hook.thread and hook.thread.name, exc_info=hook.exc_value)
