"""The record of where a pulled bundle came from. It is beside the bundle, which stays as it was made."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from slm.console.errors import SlmxError
from slm.storage.disk import write_file
from slm.storage.json_reader import Fields, read_json
from slm.storage.read_errors import reason_of

MAX_BYTES = 2**16


@dataclass(frozen=True)
class Record:
    """Where a pulled bundle came from.

    Attributes:
        hub: The address of the hub.
        repository: OWNER/NAME on it.
        revision: The branch, tag or commit that was asked for.
        commit: The hash of the commit that it was then.
        date: When it was pulled, such as 2026-11-30T12:00:00+00:00.
        manifest_sha256: SHA-256 of the manifest of the bundle. The record is not that of any other bundle.
        file: The archive in the repository that the bundle came from; None if it came file by file.
    """

    hub: str
    repository: str
    revision: str
    commit: str
    date: str
    manifest_sha256: str
    file: str | None = None


def record_path(bundle: Path) -> Path:
    """Returns the path of the record of a bundle. No repository has a name that begins with a dot."""
    resolved = bundle.resolve()
    return resolved.with_name(f".{resolved.name}.pulled.json")


def read_record(bundle: Path, manifest_sha256: str) -> Record | None:
    """Reads the record of a bundle; None if there is none, if it is damaged, or if it is that of another bundle.

    Args:
        bundle: The folder of the bundle.
        manifest_sha256: SHA-256 of its manifest.
    """
    try:
        fields = Fields(read_json(record_path(bundle), MAX_BYTES))
        record = Record(
            hub=fields.text("hub"),
            repository=fields.text("repository"),
            revision=fields.text("revision"),
            commit=fields.text("commit"),
            date=fields.text("date"),
            manifest_sha256=fields.sha256("manifest_sha256"),
            file=fields.optional("file", fields.text),
        )
    except (OSError, ValueError):
        return None
    return record if record.manifest_sha256 == manifest_sha256 else None


def write_record(bundle: Path, record: Record) -> None:
    """Writes the record of a bundle; SlmxError if it cannot be written. The bundle is whole in any case."""
    path = record_path(bundle)
    try:
        write_file(path, json.dumps(asdict(record), indent=1).encode() + b"\n")
    except OSError as error:
        raise SlmxError(
            f"{path}: cannot write ({reason_of(error)}); the bundle is complete in {bundle}, "
            "but nothing says where it came from; pull it again"
        ) from error
