"""How the packages of an extra are installed, for error messages."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

# The extras of a user that bring PyTorch, and what installs its CPU build before them (docs/install.md).
WITH_TORCH = ("train", "track", "export", "executorch", "bench")
CPU_TORCH = "pip install uv && uv pip install --torch-backend cpu torch==2.13.0"


def install_line(extra: str) -> str:
    """Returns what to type for an extra. On Linux, the CPU build of PyTorch comes first if there is none."""
    line = pip_line(extra)
    if extra not in WITH_TORCH or sys.platform != "linux" or _has_torch():
        return line
    return f"first {CPU_TORCH} (without it, pip brings gigabytes of CUDA), then {line}"


def _has_torch() -> bool:
    with suppress(ImportError, ValueError):  # what find_spec raises for a broken or hidden package
        return find_spec("torch") is not None
    return False


def pip_line(extra: str) -> str:
    """Returns the command that installs an extra from where slmx itself was installed.

    Source of direct_url.json: packaging.python.org, "Recording the Direct URL Origin of installed distributions".
    """
    root = Path(__file__).parents[2]
    if (root / "pyproject.toml").is_file():
        return f'pip install --editable "{root}[{extra}]"'
    with suppress(PackageNotFoundError, ValueError, KeyError, TypeError):
        url = urlsplit(json.loads(distribution("slmx").read_text("direct_url.json") or "{}")["url"])
        source = Path(url2pathname(url.path))
        if url.scheme == "file" and source.exists():
            return f'pip install "{source}[{extra}]"'
    return f'pip install "slmx[{extra}]"'
