"""Checks, before an export starts, that the installed packages have versions that slmx works with."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from slm.console.errors import SlmxError
from slm.console.install import pip_line

CHECKED = ("torch", "onnx", "onnxruntime")


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
            raise SlmxError(f"export needs {requirement.name}: {pip_line('export')}") from None
        if not requirement.specifier.contains(found, prereleases=True):
            raise SlmxError(
                f"{requirement.name} {found} is installed, export works with {requirement.name}"
                f'{requirement.specifier}: pip install "{requirement.name}{requirement.specifier}"'
            )
