"""The pip line of an error message installs from where slmx was installed."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from slm import install
from slm.errors import SlmxError, needs


def test_a_clone_is_installed_from_itself() -> None:
    root = Path(install.__file__).parents[1]
    assert install.pip_line("train") == f'pip install --editable "{root}[train]"'


@pytest.mark.parametrize("kind", ["folder", "gone", "index"])
def test_an_installed_copy_says_where_it_came_from(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "é 50% #1"
    if kind == "folder":
        source.mkdir()
    record = None if kind == "index" else json.dumps({"url": source.as_uri(), "dir_info": {}})
    monkeypatch.setattr(install, "__file__", str(tmp_path / "site-packages" / "slm" / "install.py"))
    monkeypatch.setattr(install, "distribution", lambda name: SimpleNamespace(read_text=lambda file: record))
    where = source if kind == "folder" else "slmx"
    assert install.pip_line("bench") == f'pip install "{where}[bench]"'
    with pytest.raises(SlmxError, match=r"^this command needs no_such_module: pip install "), needs("bench"):
        importlib.import_module("no_such_module")
