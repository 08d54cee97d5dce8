"""Refuse at once, in one line, to export with versions that slmx is not declared to work with."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from slm.errors import SlmxError

CHECKED = ("torch", "onnx", "onnxruntime", "onnxscript")


def check_versions() -> None:
    """SlmxError naming the package, the version found and those that work, as the package itself declares them."""
    for line in requires("slmx") or ():
        requirement = Requirement(line)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": "export"})
        if requirement.name not in CHECKED or not wanted:
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            raise SlmxError(f'export needs {requirement.name}: pip install "slmx[export]"') from None
        if not requirement.specifier.contains(found, prereleases=True):
            raise SlmxError(
                f"{requirement.name} {found} is installed, export works with {requirement.name}"
                f'{requirement.specifier}: pip install "{requirement.name}{requirement.specifier}"'
            )
