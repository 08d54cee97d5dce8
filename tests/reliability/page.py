"""The table of docs/reliability.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

START, END = "<!-- table: python -m tests.reliability -->", "<!-- end of table -->"


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the Markdown table of the results that docs/reliability.json holds."""
    lines = ["| promise | tried | failed | when | command |", "|---|---:|---:|---|---|"]
    for name, row in rows.items():
        tried = f"{row['tried']:,} {row['unit']}"
        command = f"`python -m tests.reliability {name}{' --quick' if row['quick'] else ''}`"
        lines.append(f"| {row['promise']} | {tried} | {len(row['failures']):,} | {row['date']} | {command} |")
    return "\n".join(lines)


def write_table(page: Path, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Replaces the table of a page."""
    before, rest = page.read_text("utf-8").split(START)
    _, after = rest.split(END)
    page.write_text(f"{before}{START}\n{table(rows)}\n{END}{after}", "utf-8")
