"""The log: one line for each request on stderr, without prompts and without keys."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict, dataclass
from datetime import datetime, timezone

from slm.console.counted import counted

LOG = logging.getLogger("slmx.serve")
LONGEST = 200


@dataclass(frozen=True)
class Entry:
    """What is logged of a request.

    Attributes:
        client: The address of the client.
        method: The method, or `-` if the request was refused before it was read.
        path: The path without the query, as it was sent.
        status: The status of the answer. 499: the client was gone before.
        seconds: From the end of the headers to the end of the answer.
        tokens: Tokens written; None if the request wrote no story.
        request: The id of the request, which the answer has as x-request-id.
        outcome: The code of the error that ended a stream, whose status was sent before; None if none did.
    """

    client: str
    method: str
    path: str
    status: int
    seconds: float
    tokens: int | None
    request: str
    outcome: str | None = None


def log_request(entry: Entry) -> None:
    """Writes the line of a request."""
    status = f"{entry.status}" if entry.outcome is None else f"{entry.status} {entry.outcome}"
    tokens = "" if entry.tokens is None else f" {counted(entry.tokens, 'token')}"
    milliseconds = round(1000 * entry.seconds, 1)
    line = f"{entry.client} {entry.method} {entry.path} {status} {milliseconds} ms{tokens} {entry.request}"
    fields = {name: value for name, value in asdict(entry).items() if value is not None and name != "seconds"}
    LOG.info("%s", line, extra={"fields": {**fields, "ms": milliseconds}})


def plain_path(raw_path: bytes) -> str:
    """Returns a path for the log, without the query."""
    return printable(raw_path[: LONGEST + 1].partition(b"?")[0].decode("ascii", "backslashreplace"))


def printable(text: str) -> str:
    """Returns what a client sent for the log: printable ASCII without spaces, and cut."""
    shown = "".join(char if "!" <= char <= "~" else "?" for char in text)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."


class JsonLines(logging.Formatter):
    """Writes each record as one JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line of a record."""
        at = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        found = {"time": at, "level": record.levelname.lower()}
        found |= getattr(record, "fields", None) or {"message": record.getMessage()}
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return json.dumps(found)


def configure_log(as_json: bool) -> None:
    """Sends the log of this process to stderr.

    Args:
        as_json: Whether each line is a JSON object.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if as_json else logging.Formatter("%(asctime)s %(message)s"))
    logging.raiseExceptions = False  # a log that nobody reads must not stop the server
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    LOG.setLevel(logging.INFO)
    # Its warnings are about requests that are refused, which have their own lines.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
