"""An emulated Raspberry Pi: Debian's aarch64 Python, the aarch64 wheels of PyPI, and the wheel of this source tree.

Nothing is installed on this machine, and no root is needed. qemu runs single programs. It translates their
instructions and passes their system calls to this machine's Linux.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.child import ROOT, output_of
from benchmarks.pi.debian import RELEASE, Packages, find_mirror
from slm.console.errors import SlmxError, UsageError, unknown
from slm.storage.locks import lock_folder

# qemu's names of the processors of Raspberry Pi 3 and Zero 2 W, of 4, and of 5.
CPUS = ("cortex-a53", "cortex-a72", "cortex-a76")
DOT_PRODUCT = ("cortex-a76",)  # those with the dot product instructions of 8-bit numbers
PYTHON = "3.13"  # the version in RELEASE
# The C libraries that a wheel may ask for: from that of manylinux2014 to that of RELEASE.
C_LIBRARIES = range(17, 42)
HOST_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Machine:
    """An emulated machine.

    Attributes:
        qemu: The emulator.
        root: The folder with Debian's files.
        site: The folder with our wheel and what it needs.
    """

    qemu: Path
    root: Path
    site: Path

    def program(self, *arguments: str) -> list[str]:
        """Returns `slmx` with arguments, as a program of the root."""
        return [str(self.root / "usr" / "bin" / "python3"), str(self.site / "bin" / "slmx"), *arguments]

    def slmx(self, cpu: str, *arguments: str) -> list[str]:
        """Returns a command that starts `slmx` on a processor."""
        return [str(self.qemu), "-cpu", cpu, "-L", str(self.root), *self.program(*arguments)]

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the commands. Hashes of texts are the same in every run."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return kept | {"PYTHONPATH": str(self.site), "PYTHONHASHSEED": "0", "PYTHONNOUSERSITE": "1"}


def cache_folder() -> Path:
    """Returns the folder that keeps the emulator, Debian's files and the wheels between two runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "slmx-pi"


def known_cpus(names: list[str] | None) -> list[str] | None:
    """Returns the processors of `--cpu`. UsageError for an unknown one."""
    for name in names or ():
        if name not in CPUS:
            raise UsageError(unknown("processor", name, CPUS))
    return names


Cpus = Annotated[
    list[str] | None,
    typer.Option("--cpu", callback=known_cpus, help="A processor; repeat for more. Default: all three."),
]
Cache = Annotated[Path | None, typer.Option(help="Where the emulator and Debian's files are kept.")]


def prepare(folder: Path, site: Path) -> Machine:
    """Makes the emulated machine. The emulator and Debian's files are kept for the next time.

    Args:
        folder: The folder to keep them in, such as `cache_folder()`.
        site: A folder that does not exist, for our wheel and what it needs.

    Returns:
        The machine.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    machine = Machine(_qemu(folder), _root(folder), site.absolute())
    _install(machine.site)
    return machine


def once(target: Path, make: Callable[[Path], None]) -> Path:
    """Makes a folder if it does not exist. An attempt that fails leaves nothing at `target`.

    Raises:
        SlmxError: Another process makes it now.
    """
    if target.is_dir():
        return target
    with lock_folder(target):
        if not target.is_dir():
            work = target.with_name(f"{target.name}.work")
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            make(work)
            work.rename(target)
    return target


def host_architecture() -> str:
    """Returns Debian's name of this machine's architecture."""
    machine = platform.machine()
    if machine not in HOST_ARCHITECTURES:
        raise SlmxError(f"Debian has no qemu for {machine}: run this on x86_64 or aarch64")
    return HOST_ARCHITECTURES[machine]


def _qemu(folder: Path) -> Path:
    def make(work: Path) -> None:
        packages = Packages(folder / "apt-host", find_mirror(), host_architecture())
        packages.unpack_file("qemu-user", "usr/bin/qemu-aarch64", work)

    return once(folder / f"qemu-{RELEASE}", make) / "usr" / "bin" / "qemu-aarch64"


def _root(folder: Path) -> Path:
    def make(work: Path) -> None:
        Packages(folder / "apt-arm64", find_mirror(), "arm64").unpack(["python3", "libstdc++6"], work)
        for name in ("bin", "lib", "sbin"):
            if not (work / name).exists():
                (work / name).symlink_to(Path("usr") / name)

    return once(folder / f"root-{RELEASE}", make)


def _install(site: Path) -> None:
    """Builds our wheel and installs it with the server, as pip there would, in the versions of constraints.txt."""
    with tempfile.TemporaryDirectory() as name:
        wheel = build_wheel(Path(name))
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        constraints = [f"--constraint={ROOT / 'constraints.txt'}", "--no-compile", f"--target={site}"]
        output_of([*pip, *wheel_settings("aarch64"), *constraints, f"{wheel}[serve]"], "installing aarch64 wheels")


def wheel_settings(machine: str) -> list[str]:
    """Returns the options of pip for the wheels that run on RELEASE.

    Args:
        machine: Linux's name of the architecture, such as "aarch64".
    """
    platforms = [*(f"manylinux_2_{minor}_{machine}" for minor in reversed(C_LIBRARIES)), f"manylinux2014_{machine}"]
    settings = ["--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp"]
    return [*settings, *(f"--platform={platform}" for platform in platforms)]


def build_wheel(target: Path) -> Path:
    """Builds the wheel of this source tree, from a copy of the files that git knows or would take.

    Args:
        target: An empty folder for the copy and the wheel.

    Returns:
        The wheel.
    """
    listed = output_of(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], "git ls-files in the source", ROOT
    )
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            copy = target / "source" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy)
    out = target / "wheel"
    output_of(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(target / "source")], "building the wheel"
    )
    (wheel,) = out.glob("*.whl")
    return wheel


def answer(command: list[str], environment: dict[str, str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Runs a command of the emulated machine in this folder. SlmxError if it takes longer than `seconds`."""
    try:
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise SlmxError(f"no end after {seconds:.0f} s: {' '.join(command)}") from None
