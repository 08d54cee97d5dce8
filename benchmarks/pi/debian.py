"""Fetches packages of Debian into a folder, without installing them. It needs no root.

apt-get downloads and checks the signatures. `dpkg-deb` unpacks. The mirror is the one that this machine's apt uses.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.child import output_of
from slm.console.errors import SlmxError

# The release that Raspberry Pi OS is built on.
RELEASE = "trixie"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
TARGETS = ("apt-get", "indextargets", "--format", "$(ORIGIN)\t$(CODENAME)\t$(REPO_URI)")


def find_mirror() -> str:
    """Returns the address of Debian's packages that this machine's apt uses. SlmxError if there is none."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise SlmxError(f"no {tool}: this is made of Debian's packages; run it on Debian")
    for line in output_of(TARGETS, "reading the sources of apt").splitlines():
        origin, codename, address = line.split("\t")
        if origin == "Debian" and "-" not in codename:
            return address
    raise SlmxError("apt knows no mirror of Debian: run `apt-get update` first, on Debian")


class Packages:
    """The packages of one architecture.

    Args:
        folder: The folder for the lists and the downloaded packages.
        mirror: The address that `find_mirror` returned.
        architecture: Debian's name of it, such as "arm64".
    """

    def __init__(self, folder: Path, mirror: str, architecture: str) -> None:
        self._archives = folder / "cache" / "archives"
        for part in ("state/lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()  # so apt takes no package of this machine as installed
        signed = f"[signed-by={KEYRING}] " if KEYRING.is_file() else ""
        lines = [f"{kind} {signed}{mirror} {RELEASE} main\n" for kind in ("deb", "deb-src")]
        (folder / "sources.list").write_text("".join(lines), "utf-8", newline="\n")
        settings = {
            "Dir::State": folder / "state",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache",
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
        }
        self._apt = ["apt-get", "--quiet", *(f"--option={name}={value}" for name, value in settings.items())]
        output_of([*self._apt, "update"], "apt-get update")

    def unpack(self, names: Sequence[str], target: Path) -> None:
        """Downloads packages with everything that they need, and unpacks them into a folder."""
        output_of([*self._apt, "--yes", "--download-only", "install", *names], "apt-get install --download-only")
        target.mkdir(parents=True, exist_ok=True)
        for archive in sorted(self._archives.glob("*.deb")):
            output_of(["dpkg-deb", "--extract", str(archive), str(target)], f"unpacking {archive.name}")

    def unpack_file(self, name: str, path: str, target: Path) -> None:
        """Downloads one package without what it needs, and unpacks one of its files into a folder."""
        output_of([*self._apt, "download", name], f"apt-get download {name}", cwd=self._archives)
        target.mkdir(parents=True, exist_ok=True)
        *_, archive = sorted(self._archives.glob(f"{name}_*.deb"))
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as unpacked:
            tar = ["tar", "--extract", "--directory", str(target), f"./{path}"]
            done = subprocess.run(tar, stdin=unpacked.stdout, stderr=subprocess.PIPE, text=True)
        if done.returncode or unpacked.returncode:
            raise SlmxError(f"unpacking {archive.name} failed: {done.stderr.strip() or 'a damaged package'}")

    def unpack_source(self, name: str, target: Path) -> None:
        """Downloads the source of a package and unpacks it without Debian's patches. The target must not exist."""
        output_of([*self._apt, "--download-only", "source", name], f"apt-get source {name}", cwd=self._archives)
        (description,) = self._archives.glob(f"{name}_*.dsc")
        unpack = ["dpkg-source", "--no-check", "--skip-patches", "--extract", str(description), str(target)]
        output_of(unpack, f"unpacking the source of {name}")
