"""Runs the checks of the promises: `python -m tests.reliability [NAME...] [--quick] [--write]`."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from datetime import date
from pathlib import Path

from runtimes.system.machine import describe_machine
from tests.reliability.record import chosen_checks, keep, kinds
from tests.reliability.registry import CHECKS

DOCS = Path(__file__).resolve().parents[2] / "docs"
MOST_SHOWN = 20


def main() -> int:
    """Runs checks and returns the exit code: 1 if a promise did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"default: all of {', '.join(kinds(CHECKS))}; a part of a check has a name such as hostile-files:manifest",
    )
    parser.add_argument("--quick", action="store_true", help="the short form of each check")
    parser.add_argument("--write", action="store_true", help="keep the results in docs/reliability.json and .md")
    chosen = parser.parse_args()
    try:
        names = chosen_checks(chosen.names, CHECKS, chosen.quick)
    except ValueError as error:
        parser.error(str(error))
    failed = False
    for name in names:
        check = CHECKS[name]
        if check.needs and shutil.which(check.needs) is None:
            print(f"{name}: skipped, {check.needs} is not installed", file=sys.stderr)
            continue
        started = time.monotonic()
        outcome = check.run(chosen.quick, lambda line: print(f"  {line}", file=sys.stderr))
        seconds = time.monotonic() - started
        if not outcome.tried and not outcome.failures:
            print(f"{name}: skipped, nothing could be tried here", file=sys.stderr)
            continue
        print(f"{name}: {outcome.tried:,} {outcome.unit}, {len(outcome.failures)} failed, {seconds:.0f} s", flush=True)
        for line in outcome.failures[:MOST_SHOWN]:
            print(f"  {line}")
        failed |= bool(outcome.failures)
        if chosen.write:
            row = {
                "tried": outcome.tried,
                "unit": outcome.unit,
                "failures": outcome.failures,
                "figures": outcome.figures,
                "seconds": round(seconds),
                "date": date.today().isoformat(),
                "quick": chosen.quick,
                "machine": describe_machine(),
            }
            keep(name, row, DOCS / "reliability.json", DOCS / "reliability.md", CHECKS)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
