"""Makes the root of a container from a Containerfile: Debian's packages, unpacked, and the commands under chroot.

The packages are not configured, so nothing that their scripts would make is there, but for the list of certificates.
The wheels are downloaded before, and pip finds them by its variables. So the commands are those of the file.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.child import ROOT, output_of
from benchmarks.container.containerfile import Stage
from benchmarks.pi.debian import Packages, find_mirror
from benchmarks.pi.machine import build_wheel, host_architecture, wheel_settings
from slm.console.errors import SlmxError

# What debian:trixie-slim holds, and what it leaves out.
BASE = ("?or(?essential,?priority(required))", "apt")
NOT_IN_SLIM = ("doc", "groff", "info", "linda", "lintian", "locale", "man")
WHEELS = "wheels"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# $0 is the root and $1 the user; what follows is the command. The root gets the devices and /proc of a container.
MOUNT = (
    'root=$0; user=$1; shift; mount --bind "$root" "$root" && mount --rbind /dev "$root/dev" '
    '&& mount -t proc proc "$root/proc"'
)
CHROOT = 'exec chroot --groups= --userspec="$user" "$root" /usr/bin/env -i "$@"'
READ_ONLY = 'mount --rbind /sys "$root/sys" && mount -o remount,ro,bind "$root" && ip link set lo up'


def build_command(root: Path, command: str, environment: Mapping[str, str]) -> list[str]:
    """Returns a command that runs a line of a shell inside a root, as its user root."""
    variables = [PATH, *(f"{name}={value}" for name, value in environment.items())]
    return ["unshare", "--mount", "sh", "-c", f"{MOUNT} && {CHROOT}", str(root), "0:0", *variables, "sh", "-c", command]


def start_command(root: Path, user: str, command: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Returns a command that starts a program inside a root that nothing can be written to, in a network of its own."""
    variables = [PATH, *(f"{name}={value}" for name, value in environment.items())]
    script = f"{MOUNT} && {READ_ONLY} && {CHROOT}"
    return ["unshare", "--mount", "--net", "sh", "-c", script, str(root), user, *variables, *command]


def beside_command(root: Path, user: str, process: int, command: Sequence[str], key: str) -> list[str]:
    """Returns a command that runs a program beside one that `start_command` started.

    Args:
        root: The root of both.
        user: The user of both, as two numbers.
        process: The first program.
        command: The other one.
        key: Its SLMX_API_KEY.
    """
    inside = ["chroot", "--groups=", f"--userspec={user}", str(root), "/usr/bin/env", "-i", PATH, f"SLMX_API_KEY={key}"]
    return ["nsenter", f"--target={process}", "--mount", "--net", *inside, *command]


def assemble(stages: Sequence[Stage], folder: Path) -> Path:
    """Makes the roots of all stages.

    Args:
        stages: The stages.
        folder: An empty folder.

    Returns:
        The root of the last stage.

    Raises:
        SlmxError: A package cannot be had, or a command fails.
    """
    context = _context(folder)
    for number, stage in enumerate(stages):
        root = folder / (stage.name or str(number))
        packages = Packages(folder / f"apt-{number}", find_mirror(), host_architecture())
        packages.unpack([*BASE, *stage.packages], root)
        for name in NOT_IN_SLIM:
            shutil.rmtree(root / "usr" / "share" / name, ignore_errors=True)
        _list_certificates(root)
        for text in stage.texts("COPY"):
            _copy(text, context, folder, root)
        if stage.commands:
            shutil.copytree(context / WHEELS, root / WHEELS)
        offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"/{WHEELS}", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        for command in stage.commands:
            output_of(build_command(root, command, {**stage.environment, **offline}), f"RUN {command}")
        shutil.rmtree(root / WHEELS, ignore_errors=True)
    return root


def compressed_size(folder: Path, *parts: str) -> int:
    """Returns the size of folders as a registry keeps them, in one archive of tar and gzip.

    Args:
        folder: The folder that holds them.
        parts: Their names; without any, all that is there.

    Raises:
        SlmxError: A file cannot be read.
    """
    tar = ["tar", "--create", "--sort=name", f"--directory={folder}", *(parts or ["."])]
    gzip, size = ["gzip", "-6"], 0
    with (
        subprocess.Popen(tar, stdout=subprocess.PIPE) as packing,
        subprocess.Popen(gzip, stdin=packing.stdout, stdout=subprocess.PIPE) as packed,
    ):
        assert packed.stdout is not None
        while block := packed.stdout.read(2**20):
            size += len(block)
    if packing.returncode or packed.returncode:
        raise SlmxError(f"packing {folder} failed")
    return size


def _context(folder: Path) -> Path:
    """Makes the folder that the build begins with: our wheel, constraints.txt and all wheels that ours needs."""
    context = folder / "context"
    (context / "dist").mkdir(parents=True)
    wheel = build_wheel(folder / "source")
    shutil.copyfile(wheel, context / "dist" / wheel.name)
    shutil.copyfile(ROOT / "constraints.txt", context / "constraints.txt")
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"]
    constraints = [f"--constraint={ROOT / 'constraints.txt'}", f"--dest={context / WHEELS}"]
    output_of([*command, *wheel_settings(platform.machine()), *constraints, f"{wheel}[serve]"], "downloading wheels")
    return context


def _list_certificates(root: Path) -> None:
    """Writes the file that the script of the package ca-certificates makes. Debian's pip does not start without it."""
    found = sorted((root / "usr" / "share" / "ca-certificates").rglob("*.crt"))
    if found:
        listed = root / "etc" / "ssl" / "certs" / "ca-certificates.crt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_bytes(b"".join(path.read_bytes() for path in found))


def _copy(text: str, context: Path, folder: Path, root: Path) -> None:
    """Copies the files that a COPY instruction names."""
    *sources, target = text.split()
    start = context
    if sources[0].startswith("--from="):
        start = folder / sources.pop(0).removeprefix("--from=")
    place = root / target.lstrip("/")
    for source in sources:
        for found in start.glob(source.lstrip("/")):
            if found.is_dir():
                shutil.copytree(found, place, symlinks=True)
            else:
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy2(found, place / found.name)
