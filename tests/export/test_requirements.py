"""Package versions that the metadata does not allow are refused before the export starts."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as real_version

import pytest

import export.requirements
from export.requirements import CHECKED, check_versions
from slm.console import install
from slm.console.errors import SlmxError
from slm.console.install import CPU_TORCH, pip_line


def test_what_is_installed_here_works() -> None:
    check_versions()


@pytest.mark.parametrize(
    ("package", "found", "wanted", "line"),
    [
        ("torch", "2.4.1", "torch>=2.13", 'pip install "torch>=2.13"'),
        ("torch", "2.4.1+cpu", "torch>=2.13", CPU_TORCH),
        ("onnxruntime", "1.17.0", "onnxruntime>=1.22", 'pip install "onnxruntime>=1.22"'),
        ("onnx", "1.14", "onnx>=1.18", 'pip install "onnx>=1.18"'),
    ],
)
def test_an_old_one_is_named_with_those_that_work(
    monkeypatch: pytest.MonkeyPatch, package: str, found: str, wanted: str, line: str
) -> None:
    monkeypatch.setattr(export.requirements, "version", lambda name: found if name == package else real_version(name))
    with pytest.raises(SlmxError) as caught:
        check_versions()
    assert str(caught.value) == f"{package} {found} is installed, export works with {wanted}: {line}"


@pytest.mark.parametrize("package", CHECKED)
def test_a_missing_one_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    def version(name: str) -> str:
        if name == package:
            raise PackageNotFoundError(name)
        return real_version(name)

    monkeypatch.setattr(export.requirements, "version", version)
    with pytest.raises(SlmxError, match=rf"^export needs {package}: {re.escape(pip_line('export'))}$"):
        check_versions()
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(install, "find_spec", lambda name: None)
    with pytest.raises(SlmxError, match=rf"^export needs {package}: first {re.escape(CPU_TORCH)}"):
        check_versions()
