"""How the packages of an extra are installed, for error messages."""

from __future__ import annotations

import json
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname


def pip_line(extra: str) -> str:
    """The command that installs an extra from where slmx itself was installed.

    Source of direct_url.json: packaging.python.org, "Recording the Direct URL Origin of installed distributions".
    """
    root = Path(__file__).parents[1]
    if (root / "pyproject.toml").is_file():
        return f'pip install --editable "{root}[{extra}]"'
    with suppress(PackageNotFoundError, ValueError, KeyError, TypeError):
        url = urlsplit(json.loads(distribution("slmx").read_text("direct_url.json") or "{}")["url"])
        source = Path(url2pathname(url.path))
        if url.scheme == "file" and source.exists():
            return f'pip install "{source}[{extra}]"'
    return f'pip install "slmx[{extra}]"'
