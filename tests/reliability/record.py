"""The record of what was tried: docs/reliability.json, and the table of docs/reliability.md that is made from it.

A check of many readers or writers has a part for each, with a name such as "hostile-files:manifest". Parts are run and
recorded one by one. The table has one row for all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.reliability.outcome import Check

START, END = "<!-- table: python -m tests.reliability -->", "<!-- end of table -->"
Rows = Mapping[str, Mapping[str, Any]]


def kind_of(name: str) -> str:
    """Returns the name of a check without that of its part."""
    return name.partition(":")[0]


def kinds(names: Iterable[str]) -> list[str]:
    """Returns the names without parts, each once."""
    return list(dict.fromkeys(map(kind_of, names)))


def chosen_checks(wanted: Sequence[str], checks: Mapping[str, Check], quick: bool) -> list[str]:
    """Returns the names of the checks to run.

    Args:
        wanted: Names. One without a part stands for all parts of its check. None stand for all checks.
        checks: The checks.
        quick: Whether parts that the short form leaves out are chosen only by their whole names.

    Raises:
        ValueError: There is no such check.
    """
    chosen: list[str] = []
    all_of_them = kinds(each for each in checks if checks[each].in_short_form or not quick)
    for name in wanted or all_of_them:
        found = [each for each in checks if kind_of(each) == name and (checks[each].in_short_form or not quick)]
        if name in checks:
            found = [name]
        if not found:
            parts = [each for each in checks if kind_of(each) == kind_of(name)]
            raise ValueError(f"no check {name!r}: choose from {', '.join(parts or kinds(checks))}")
        chosen += found
    return chosen


def keep(name: str, row: Mapping[str, Any], record: Path, page: Path, checks: Mapping[str, Check]) -> None:
    """Writes a result to the record, and the table of the page again.

    A result of the short form does not replace one of the full form.
    """
    rows = json.loads(record.read_text("utf-8")) if record.is_file() else {}
    if not row["quick"] or rows.get(name, row)["quick"]:
        rows[name] = row
    rows = {key: rows[key] for key in checks if key in rows}
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in rows.items())
    record.write_text(f"{{\n{lines}\n}}\n", "utf-8")
    before, rest = page.read_text("utf-8").split(START)
    _, after = rest.split(END)
    page.write_text(f"{before}{START}\n{table(rows, checks)}\n{END}{after}", "utf-8")


def table(rows: Rows, checks: Mapping[str, Check]) -> str:
    """Returns the Markdown table of a record, with one row for the parts of a check."""
    lines = ["| promise | tried | failed | when | command |", "|---|---:|---:|---|---|"]
    for kind in kinds(rows):
        parts = {name: row for name, row in rows.items() if kind_of(name) == kind}
        every = [name for name in checks if kind_of(name) == kind]
        full = [name for name, row in parts.items() if not row["quick"]]
        tried = f"{sum(row['tried'] for row in parts.values()):,} {next(iter(parts.values()))['unit']}"
        command = f"`python -m tests.reliability {kind}{'' if full else ' --quick'}`"
        if full and len(full) < len(every):
            command += f" for {len(full)} of {len(every)} parts"
            command += f", `--quick` for {len(parts) - len(full)}" if len(parts) > len(full) else ""
        failed = sum(len(row["failures"]) for row in parts.values())
        dates = [row["date"] for row in parts.values()]
        days = " to ".join(sorted({min(dates), max(dates)}))
        lines.append(f"| {checks[every[0]].promise} | {tried} | {failed:,} | {days} | {command} |")
    return "\n".join(lines)
