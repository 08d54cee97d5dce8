"""What all studies have in common: the option `--out` and the file of the results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.program import command_line
from benchmarks.studies.figures import Figure
from runtimes.system.machine import describe_machine
from slm.console.errors import UsageError
from slm.presets import get_preset
from slm.storage.disk import check_creatable, write_file


def in_a_folder(out: Path | None) -> Path | None:
    """Returns the file of `--out`, before a study takes its time.

    Raises:
        UsageError: It is a folder, or its folder does not exist.
        WriteError: Nothing can be written there.
    """
    if out is None:
        return None
    if out.is_dir():
        raise UsageError(f"{out}: a folder; name a file in it with --out")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"{out}: its folder does not exist; make it, or name another file with --out")
    check_creatable(out)
    return out


def known_presets(names: list[str] | None) -> list[str] | None:
    """Returns the names of `--preset`. Raises UsageError if one is no preset."""
    for name in names or ():
        get_preset(name)
    return names


Out = Annotated[Path | None, typer.Option("--out", callback=in_a_folder, help="Write the results to this JSON file.")]
Presets = Annotated[
    list[str] | None,
    typer.Option("--preset", callback=known_presets, help="A preset; repeat for more. Default: several."),
]
Rounds = Annotated[int, typer.Option("--rounds", min=2, help="Rounds in which everything is measured in turn.")]


def write_results(
    out: Path | None,
    settings: Mapping[str, Any],
    results: Mapping[str, Any],
    figures: Iterable[Figure] = (),
    packages: Mapping[str, str] | None = None,
) -> None:
    """Writes what a study measured, with its command and a description of the machine.

    Args:
        out: The JSON file; nothing is written if it is None.
        settings: What was measured, and how often.
        results: All samples or counts.
        figures: The figures that have goals.
        packages: Versions of packages that only this study uses, for the description of the machine.
    """
    if out is None:
        return
    record = {
        "command": command_line(),
        "machine": describe_machine() | dict(packages or {}),
        "settings": settings,
        "figures": [asdict(figure) for figure in figures],
        "results": results,
    }
    write_record(out, record)


def write_record(out: Path, record: Mapping[str, Any]) -> None:
    """Writes a JSON file of results. It appears complete or not at all."""
    write_file(out, f"{json.dumps(record, indent=1)}\n".encode())
