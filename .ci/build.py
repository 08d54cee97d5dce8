"""Builds the source archive and the wheel of a package, byte for byte the same from any folder and on any day.

    python .ci/build.py [SOURCE] [--out DIR]

The date of every file in them is SOURCE_DATE_EPOCH, by default that of the last commit. `build` and the setuptools of
.ci/requirements.txt must be installed: another version of setuptools may write other bytes.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path


def main() -> None:
    """Builds the package that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=Path, default=Path(), help="folder with pyproject.toml; default: .")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="default: dist")
    chosen = parser.parse_args()
    os.umask(0o022)
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or last_commit(chosen.source))
    os.environ["SOURCE_DATE_EPOCH"] = str(epoch)
    out = chosen.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        build(chosen.source, work / "dist", "--sdist")
        (archive,) = (work / "dist").iterdir()
        repack(archive, epoch)
        with tarfile.open(archive) as content:
            content.extractall(work / "unpacked", filter="data")
        (folder,) = (work / "unpacked").iterdir()
        build(folder, out, "--wheel")
        shutil.move(archive, out / archive.name)


def last_commit(source: Path) -> str:
    """Returns the date of the last commit in seconds since 1970."""
    command = ["git", "-C", str(source), "log", "-1", "--format=%ct"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def build(source: Path, out: Path, kind: str) -> None:
    """Runs `build` with the setuptools that is installed."""
    command = [sys.executable, "-m", "build", "--no-isolation", kind, "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{source}: cannot be built\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def repack(archive: Path, epoch: int) -> None:
    """Writes a source archive again: files by name, one date, no owner, and permissions that no umask decides."""
    with tarfile.open(archive) as old:
        members = sorted(old.getmembers(), key=lambda member: member.name)
        contents = {member.name: file.read() for member in members if (file := old.extractfile(member))}
    with (
        archive.open("wb") as raw,
        gzip.GzipFile("", "wb", 9, raw, mtime=epoch) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in members:
            plain = tarfile.TarInfo(member.name)
            plain.type, plain.size, plain.mtime = member.type, member.size, epoch
            plain.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            new.addfile(plain, io.BytesIO(contents.get(member.name, b"")))


if __name__ == "__main__":
    main()
