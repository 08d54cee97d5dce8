"""A plain installation writes the pinned story with the oldest and the newest packages that slmx claims to work with.

The pinned story is that of tests/frozen/golden.json, in float32. Files of every earlier format are read too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from export.exporter import export_bundle
from export.settings import ExportSettings
from slm.console.notice import Log
from tests.bundles import brief_checks
from tests.reliability.builds import ROOT, build
from tests.reliability.formats import FROZEN, READERS, read
from tests.reliability.outcome import Check, Outcome

PACKAGES = ("slm", "runtimes", "export", "benchmarks")
TYPED_FOR = "3.10"
# Its arguments are a bundle and golden.json. It prints the versions of what it ran with.
STORY = """
import json, sys
from importlib.metadata import version
from runtimes import load

golden = json.loads(open(sys.argv[2], encoding="utf-8").read())
with load(sys.argv[1], "fp32") as generator:
    story = generator.generate(golden["prompt"], max_tokens=len(golden["ids"]), temperature=0.0)
assert list(story.ids) == golden["ids"], f"other tokens: {list(story.ids)}"
with load(sys.argv[1], "int8") as generator:
    assert generator.generate(golden["prompt"], max_tokens=20, seed=1).completion_text
names = ("numpy", "onnxruntime", "tiktoken", "typer", "filelock")
print(json.dumps({name: version(name) for name in names}))
"""


@dataclass(frozen=True)
class Installation:
    """A version of Python, and the packages that are pinned in it; the others are the newest."""

    python: str
    pins: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"Python {self.python}, {', '.join(self.pins) or 'the newest packages'}"


def oldest() -> tuple[str, ...]:
    """Returns the oldest version of each package that a plain installation needs, from pyproject.toml."""
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    listed = project.partition("\ndependencies = [")[2].partition("]")[0]
    return tuple(f"{name}=={version}" for name, version in re.findall(r'"([\w-]+)>=([\d.]+)', listed))


def installations() -> list[Installation]:
    """Returns what is tried: the oldest packages, numpy 1 among newer ones, and the newest."""
    return [
        Installation("3.10", oldest()),
        Installation("3.11", oldest()),
        Installation("3.11", ("numpy<2",)),
        Installation("3.11"),
        Installation("3.13"),
    ]


def find_python(version: str) -> str | None:
    """Returns a Python of this version, from the path or from pyenv; None if there is none."""
    candidates = [shutil.which(f"python{version}") or "", sys.executable]
    candidates += sorted(map(str, (Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python")))
    for candidate in filter(None, candidates):
        asked = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        if subprocess.run(asked, capture_output=True, text=True).stdout.strip() == version:
            return candidate
    return None


def ran(*command: str | Path) -> tuple[str, str | None]:
    """Runs a command outside the repository; returns its output, and its last line of errors if it failed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True)
    if not done.returncode:
        return done.stdout, None
    said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
    return "", f"{Path(command[0]).name} {' '.join(map(str, command[1:3])).splitlines()[0]}: {said[-1]}"


def install_and_write(each: Installation, wheel: Path, bundle: Path, outcome: Outcome) -> None:
    """Installs the wheel into a fresh environment, and writes the pinned story there."""
    python = find_python(each.python)
    if python is None:
        outcome.figures[str(each)] = "not tried: no such Python here"
        return
    outcome.tried += 1
    with tempfile.TemporaryDirectory() as work:
        bin_ = Path(work) / "bin"
        steps: list[list[str | Path]] = [
            [python, "-m", "venv", work],
            [bin_ / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel, *each.pins],
            [bin_ / "slmx", "--help"],
            [bin_ / "slmx", "generate", "--help"],
            [bin_ / "slmx", "info", bundle],
            [bin_ / "python", "-c", STORY, bundle, FROZEN / "golden.json"],
        ]
        for step in steps:
            out, wrong = ran(*step)
            if wrong is not None:
                outcome.failures.append(f"{each}: {wrong}")
                return
        outcome.figures[str(each)] = json.loads(out)


def check_types(outcome: Outcome) -> None:
    """Checks the types of the packages for the oldest Python. Stubs of packages differ there, so two rules are off."""
    command = [sys.executable, "-m", "mypy", "--python-version", TYPED_FOR, "--no-warn-unused-ignores"]
    done = subprocess.run([*command, "--no-warn-return-any", *PACKAGES], cwd=ROOT, capture_output=True, text=True)
    outcome.tried += 1
    outcome.failures += [f"mypy for {TYPED_FOR}: {line}" for line in done.stdout.splitlines()[:-1] if done.returncode]


def run(quick: bool, log: Log) -> Outcome:
    """Reads the frozen files; the whole form also installs slmx in fresh environments."""
    outcome = Outcome(0, "old files, installations and versions of Python")
    for name in READERS:
        outcome.tried += 1
        if (wrong := read(name)) is not None:
            outcome.failures.append(wrong)
    if quick:
        return outcome
    with tempfile.TemporaryDirectory() as work:
        log("building the wheel, and a bundle of the frozen nano")
        if (wrong := build(ROOT, Path(work) / "dist")) is not None:
            outcome.failures.append(wrong)
            return outcome
        (wheel,) = (Path(work) / "dist").glob("*.whl")
        with brief_checks():
            bundle, _ = export_bundle(ExportSettings(None, Path(work) / "nano", FROZEN / "nano", ("fp32", "int8")), log)
        for each in installations():
            log(str(each))
            install_and_write(each, wheel, bundle, outcome)
    log(f"types for Python {TYPED_FOR}")
    check_types(outcome)
    return outcome


CHECKS = {
    "versions": Check(
        "files of every earlier format are read, and a plain installation writes the pinned story with the oldest and "
        "the newest packages",
        run,
    )
}
