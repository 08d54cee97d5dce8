"""Counts the instructions that a program runs on an emulated Raspberry Pi.

The qemu of Debian takes no plugins. So this builds one from Debian's source package, with qemu's own plugin `insn`. It
needs a C compiler and the headers of glib.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.child import output_of
from benchmarks.pi.debian import RELEASE, Packages, find_mirror
from benchmarks.pi.machine import host_architecture, once
from slm.console.errors import SlmxError

BUILD_TOOLS = ("meson>=1.5,<1.9", "ninja", "pycotap==1.3.1")
PLUGIN = "tests/tcg/plugins/libinsn.so"
FEATURES = (
    "--enable-plugins",
    "--without-default-features",
    "--disable-system",
    "--disable-tools",
    "--disable-docs",
    "--disable-install-blobs",
)
# The plugin writes a line for each thread. The first is the one that runs Python and, with one thread, the model.
MAIN_THREAD = re.compile(r"^cpu 0 insns: (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Counter:
    """A qemu that counts.

    Attributes:
        qemu: The emulator.
        plugin: The plugin that counts.
    """

    qemu: Path
    plugin: Path

    def count(self, cpu: str, root: Path, program: list[str], environment: Mapping[str, str]) -> tuple[int, str]:
        """Runs a program and counts the instructions of its main thread.

        Args:
            cpu: qemu's name of the processor.
            root: The folder with the aarch64 system.
            program: The program and its arguments.
            environment: Its environment.

        Returns:
            The number of instructions, and what the program printed.

        Raises:
            SlmxError: It fails, or nothing was counted.
        """
        with tempfile.NamedTemporaryFile("r", suffix=".log") as log:
            counting = ["-plugin", f"{self.plugin},inline=on", "-d", "plugin", "-D", log.name]
            command = [str(self.qemu), "-cpu", cpu, *counting, "-L", str(root), *program]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            found = MAIN_THREAD.search(log.read())
        if done.returncode or found is None:
            last = (done.stderr.strip().splitlines() or ["no count"])[-1]
            raise SlmxError(f"{' '.join(program)} on {cpu}: exit code {done.returncode}, {last}")
        return int(found[1]), done.stdout


def build_counter(folder: Path) -> Counter:
    """Builds the emulator, which takes some minutes, or takes the one that is in the folder.

    Args:
        folder: The folder that keeps it, such as `cache_folder()`.

    Returns:
        The counter.

    Raises:
        SlmxError: Something that it needs is missing, or the build fails.
    """
    for tool in ("cc", "pkg-config"):
        if shutil.which(tool) is None:
            raise SlmxError(f"no {tool}, which qemu's build needs: apt-get install gcc pkg-config libglib2.0-dev")
    if subprocess.run(["pkg-config", "--exists", "glib-2.0"]).returncode:
        raise SlmxError("no headers of glib, which qemu's build needs: apt-get install libglib2.0-dev")
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)

    def make(work: Path) -> None:
        packages = Packages(folder / "apt-host", find_mirror(), host_architecture())
        packages.unpack_source("qemu", work / "source")
        _build(work)
        for name in ("source", "build", "tools"):
            shutil.rmtree(work / name)

    made = once(folder / f"counter-{RELEASE}", make)
    return Counter(made / "qemu-aarch64", made / Path(PLUGIN).name)


def _build(work: Path) -> None:
    output_of([sys.executable, "-m", "venv", str(work / "tools")], "making an environment for qemu's build")
    python = str(work / "tools" / "bin" / "python")
    output_of([python, "-m", "pip", "install", "--quiet", *BUILD_TOOLS], "installing the tools of qemu's build")
    build = work / "build"
    build.mkdir()
    configure = [str(work / "source" / "configure"), f"--python={python}", "--target-list=aarch64-linux-user"]
    output_of([*configure, *FEATURES], "qemu's configure", cwd=build)
    ninja = str(work / "tools" / "bin" / "ninja")
    output_of([ninja, "qemu-aarch64", PLUGIN], "building qemu", cwd=build)
    for name in ("qemu-aarch64", PLUGIN):
        shutil.copy(build / name, work)
