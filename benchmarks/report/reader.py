"""Reads report.json of this format version and of the one before it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.report.record import FORMAT_VERSION, Report
from benchmarks.report.typed_json import from_json
from slm.console.errors import SlmxError
from slm.folder_kind import Kind, find_kind
from slm.storage.json_reader import read_json
from slm.storage.read_errors import unreadable

PARTIAL_REPORT = "partial-report"  # the folder of the report of a run that was stopped
MOST_BYTES = 256 * 2**20


def read_report(path: Path) -> Report:
    """Reads a report.

    Args:
        path: A report.json of this slmx or of an earlier version, its folder, or the --out of slmx bench.

    Raises:
        SlmxError: The file cannot be read, is larger than 256 MiB, is not a benchmark report, has a figure that is
            missing or impossible, or is of an unknown format version.
    """
    if path.is_dir():
        inside = next((path / name for name in ("report.json", "report/report.json") if (path / name).is_file()), None)
        if inside is None and (partial := path / PARTIAL_REPORT).is_dir():
            raise SlmxError(f"{path}: an unfinished run of slmx bench; its command continues it, or name {partial}")
        if inside is None:
            raise SlmxError(f"{path}: {find_kind(path).value}, not {Kind.REPORT.value}; name the folder that it wrote")
        path = inside
    try:
        found = read_json(path, MOST_BYTES)
    except OSError as error:
        raise unreadable(path, error, advice="name the report of a slmx bench run") from error
    except ValueError as error:
        raise SlmxError(f"{path}: not a benchmark report ({error}); write one with slmx bench") from error
    version = found.get("format_version") if isinstance(found, dict) else None
    if type(version) is not int:
        raise SlmxError(f"{path}: not a benchmark report (no format_version); write one with slmx bench")
    if not 1 <= version <= FORMAT_VERSION:
        raise SlmxError(
            f"{path}: report format {version}, this slmx reads 1 to {FORMAT_VERSION}; measure again with this slmx"
        )
    try:
        return report_from_json(found)
    except ValueError as error:
        raise SlmxError(f"{path}: not a valid benchmark report ({error}); measure again with slmx bench") from error


def report_from_json(found: object) -> Report:
    """Builds a report from its JSON object; ValueError names the first field that is wrong."""
    if isinstance(found, dict) and found.get("format_version") == 1:
        found = _from_version_1(found)
    return from_json(Report, found)


def _from_version_1(found: dict[str, object]) -> dict[str, object]:
    """Converts version 1, which calls a runner "side" and the increase of the bits per byte "loss"."""
    results = found.get("results")
    if isinstance(results, list):
        results = [_renamed(result, {"loss": "bpb_increase"}) for result in results]
        for result in results:
            if isinstance(result, dict) and "case" in result:
                result["case"] = _renamed(result["case"], {"side": "runner"})
    return {**found, "results": results, "format_version": FORMAT_VERSION}


def _renamed(value: object, names: dict[str, str]) -> object:
    """Returns a copy of an object with fields renamed; anything else is returned as it is."""
    return {names.get(name, name): entry for name, entry in value.items()} if isinstance(value, dict) else value
