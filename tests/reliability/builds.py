"""The wheels and source archives of slmx are the same bytes from any folder, on any day, for any user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from slm.console.notice import Log
from slm.storage.hashing import sha256_of
from tests.reliability.outcome import Check, Outcome

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / ".ci" / "build.py"
PAGE = ROOT / "runtimes" / "web" / "app"
STORIES = ROOT / "runtimes" / "stories_small"
FOLDERS = ("first", "another place é")
FILE_DATES = (1_500_000_000, 1_700_000_000)
MASKS = (0o022, 0o002)
ZONES = ("UTC", "Asia/Tokyo")
EPOCH = "1767225600"


def tracked(source: Path) -> list[Path]:
    """Returns the files of git in a folder of the repository, relative to it."""
    command = ["git", "-C", str(source), "ls-files", "-z"]
    listed = subprocess.run(command, check=True, capture_output=True).stdout.decode("utf-8")
    return [Path(name) for name in listed.split("\0") if name and (source / name).is_file()]


def copy_source(source: Path, target: Path, date: int, mask: int) -> None:
    """Copies the files of git, with a date and the permissions that a checkout with this umask gives them."""
    for name in tracked(source):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
        (target / name).chmod((0o777 if os.access(source / name, os.X_OK) else 0o666) & ~mask)
        os.utime(target / name, (date, date))


def build(source: Path, out: Path, zone: str = "UTC") -> str | None:
    """Builds a package; returns what went wrong, or None."""
    environment = os.environ | {"SOURCE_DATE_EPOCH": EPOCH, "TZ": zone}
    command = [sys.executable, str(SCRIPT), str(source), "--out", str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done.stderr[-1000:] or "it ended without a message" if done.returncode else None


def build_twice(source: Path, log: Log) -> dict[str, set[str]] | str:
    """Returns the hashes of each file that two builds gave, or what went wrong."""
    found: dict[str, set[str]] = {}
    with tempfile.TemporaryDirectory() as work:
        for name, date, mask, zone in zip(FOLDERS, FILE_DATES, MASKS, ZONES, strict=True):
            copy, out = Path(work) / name, Path(work) / f"{name} out"
            copy_source(source, copy, date, mask)
            if (wrong := build(copy, out, zone)) is not None:
                return wrong
            for path in sorted(out.iterdir()):
                found.setdefault(path.name, set()).add(sha256_of(path))
                log(f"{path.name} from {name!r}: {sha256_of(path)[:16]}")
    return found


def run(quick: bool, log: Log) -> Outcome:
    """Builds each package twice. The short form builds that of the page only."""
    outcome = Outcome(0, "files built twice")
    for source in (PAGE,) if quick else (ROOT, PAGE, STORIES):
        found = build_twice(source, log)
        where = source.relative_to(ROOT).as_posix()
        if isinstance(found, str):
            outcome.failures.append(f"{where}: {found}")
            continue
        outcome.tried += len(found)
        if sorted(Path(name).suffix for name in found) != [".gz", ".whl"]:
            outcome.failures.append(f"{where}: built {', '.join(found)}, not one wheel and one source archive")
        outcome.failures += [f"{where}: {name} differs" for name, hashes in found.items() if len(hashes) > 1]
        outcome.figures |= {name: min(hashes) for name, hashes in found.items() if len(hashes) == 1}
    return outcome


CHECKS = {
    "reproducible": Check(
        "wheels and source archives are the same bytes from any folder, on any day and with any umask", run, "git"
    )
}
