"""Checks, before an export starts, that the installed packages have versions that slmx works with."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from slm.console.errors import SlmxError
from slm.console.install import CPU_TORCH, install_line

CHECKED = ("torch", "onnx", "onnxruntime")
CPU_BUILD = "+cpu"  # how a version of PyTorch's CPU build ends


def check_versions() -> None:
    """Compares the installed versions with those that the metadata of slmx declares.

    Raises:
        SlmxError: A package is missing or has another version. The message has the pip command that repairs it.
    """
    for line in requires("slmx") or ():
        requirement = Requirement(line)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": "export"})
        if requirement.name not in CHECKED or not wanted:
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            raise SlmxError(f"export needs {requirement.name}: {install_line('export')}") from None
        if not requirement.specifier.contains(found, prereleases=True):
            works = f"{requirement.name}{requirement.specifier}"
            # pip would bring the build with CUDA in place of the CPU build.
            line = CPU_TORCH if found.endswith(CPU_BUILD) else f'pip install "{works}"'
            raise SlmxError(f"{requirement.name} {found} is installed, export works with {works}: {line}")
