"""Damages files as atheris is led by the lines that are reached: `python -m tests.reliability.coverage_guided READER`.

It needs an environment of its own with slmx and the package `atheris`. Further arguments go to libFuzzer, such as
`-max_total_time=600` or a folder for its corpus. It stops at the first fault, and writes the input to `crash-...`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["slm", "runtimes", "export", "benchmarks"]):
    from tests.reliability.reader import fault_of
    from tests.reliability.readers import READERS


def main() -> None:
    """Tries damaged contents of one reader until a fault or a limit of libFuzzer."""
    if len(sys.argv) < 2 or sys.argv[1] not in READERS:
        raise SystemExit(f"name a reader: {', '.join(READERS)}")
    name = sys.argv.pop(1)
    with tempfile.TemporaryDirectory() as folder:
        home, seeds = Path(folder) / "home", Path(folder) / "seeds"
        home.mkdir()
        seeds.mkdir()
        reader = READERS[name](home)
        for number, content in enumerate(reader.seeds):
            (seeds / str(number)).write_bytes(content)

        def try_one(content: bytes) -> None:
            if (fault := fault_of(reader, content)) is not None:
                raise RuntimeError(fault[0]) from fault[1]

        atheris.Setup([*sys.argv, str(seeds)], try_one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
