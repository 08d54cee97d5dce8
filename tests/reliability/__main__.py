"""Runs the checks of the promises: `python -m tests.reliability [NAME...] [--quick] [--write]`."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from datetime import date
from pathlib import Path

from runtimes.system.machine import describe_machine
from tests.reliability.page import write_table
from tests.reliability.registry import CHECKS

DOCS = Path(__file__).resolve().parents[2] / "docs"
MOST_SHOWN = 20


def main() -> int:
    """Runs checks and returns the exit code: 1 if a promise did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(CHECKS)}")
    parser.add_argument("--quick", action="store_true", help="the short form of each check")
    parser.add_argument("--write", action="store_true", help="keep the results in docs/reliability.json and .md")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.names if name not in CHECKS]
    if unknown:
        parser.error(f"no check {unknown[0]!r}: choose from {', '.join(CHECKS)}")
    failed = False
    for name in chosen.names or CHECKS:
        check = CHECKS[name]
        if check.needs and shutil.which(check.needs) is None:
            print(f"{name}: skipped, {check.needs} is not installed", file=sys.stderr)
            continue
        started = time.monotonic()
        outcome = check.run(chosen.quick, lambda line: print(f"  {line}", file=sys.stderr))
        seconds = time.monotonic() - started
        print(f"{name}: {outcome.tried:,} {outcome.unit}, {len(outcome.failures)} failed, {seconds:.0f} s")
        for line in outcome.failures[:MOST_SHOWN]:
            print(f"  {line}")
        failed |= bool(outcome.failures)
        if chosen.write:
            row = {
                "promise": check.promise,
                "tried": outcome.tried,
                "unit": outcome.unit,
                "failures": outcome.failures,
                "figures": outcome.figures,
                "seconds": round(seconds),
                "date": date.today().isoformat(),
                "quick": chosen.quick,
                "machine": describe_machine(),
            }
            record = DOCS / "reliability.json"
            rows = json.loads(record.read_text("utf-8")) if record.is_file() else {}
            rows = {key: (rows | {name: row})[key] for key in CHECKS if key in rows or key == name}
            record.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
            write_table(DOCS / "reliability.md", rows)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
