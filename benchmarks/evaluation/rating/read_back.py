"""`slmx evaluate --ratings`: what people saved, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.evaluation.rating.answers import measure, read_raters
from benchmarks.evaluation.rating.questions import Key
from benchmarks.evaluation.rating.table import ratings_table
from slm.console.errors import UsageError
from slm.storage.disk import write_file

RESULT, REPORT = "ratings.json", "ratings.md"


def read_back(files: Sequence[Path], model: str | None, out: Path | None, as_json: bool) -> str:
    """Reads the files of raters, and writes the figures into the folder with the key.

    Args:
        files: What the page saved, one file of each rater.
        model: A model; there must be none.
        out: The folder of the evaluation that made the sheet.
        as_json: Whether JSON is returned.

    Returns:
        The table, or one JSON object.

    Raises:
        SlmxError: A file is not of this sheet, or there is no key.
        UsageError: There is a model or no folder, or two files are of the same rater.
    """
    if model is not None:
        raise UsageError(f"--ratings takes no MODEL ({model}): repeat --ratings before each file")
    if out is None:
        raise UsageError("--ratings needs --out DIR, the folder in which --rating-sheet has put the key")
    key = Key.read(out)
    found = measure(key, read_raters(files, key))
    shown, content = ratings_table(found), json.dumps(found, ensure_ascii=False)
    write_file(out / REPORT, f"{shown}\n".encode())
    write_file(out / RESULT, f"{content}\n".encode())
    return content if as_json else shown
