"""The pip line of an error message installs from where slmx was installed."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from slm.console import install
from slm.console.errors import SlmxError, needs
from tests.bundles import Slmx


def test_a_clone_is_installed_from_itself() -> None:
    root = Path(install.__file__).parents[2]
    assert install.pip_line("train") == f'pip install --editable "{root}[train]"'


def test_the_cpu_build_of_pytorch_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """As README and docs/install.md say, for every extra of a user that needs PyTorch."""
    root = Path(install.__file__).parents[2]
    monkeypatch.setattr("sys.platform", "linux")
    assert install.install_line("train") == install.pip_line("train"), "PyTorch is here"
    monkeypatch.setattr(install, "find_spec", lambda name: None)
    first = f"first {install.CPU_TORCH} (without it, pip brings gigabytes of CUDA), then "
    assert install.install_line("train") == first + install.pip_line("train")
    assert install.install_line("serve") == install.pip_line("serve")
    assert install.CPU_TORCH in (root / "README.md").read_text("utf-8")
    for error in (ModuleNotFoundError, ValueError):
        monkeypatch.setattr(install, "find_spec", Mock(side_effect=error))
        assert install.install_line("train").startswith(first)
    lines = (root / "pyproject.toml").read_text("utf-8").split("[project.optional-dependencies]")[1].split("\n[")[0]
    parts = re.findall(r"^(\w+) = \[(.*?)^(?=\w|$)", lines, re.MULTILINE | re.DOTALL)
    assert {name for name, packages in parts if '"torch>=' in packages} == {"train", "export"} < {*install.WITH_TORCH}
    monkeypatch.setattr("sys.platform", "darwin")
    assert install.install_line("train") == install.pip_line("train")


@pytest.mark.parametrize("kind", ["folder", "gone", "index"])
def test_an_installed_copy_says_where_it_came_from(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "é 50% #1"
    if kind == "folder":
        source.mkdir()
    record = None if kind == "index" else json.dumps({"url": source.as_uri(), "dir_info": {}})
    monkeypatch.setattr(install, "__file__", str(tmp_path / "site-packages" / "slm" / "console" / "install.py"))
    monkeypatch.setattr(install, "distribution", lambda name: SimpleNamespace(read_text=lambda file: record))
    where = source if kind == "folder" else "slmx"
    assert install.pip_line("bench") == f'pip install "{where}[bench]"'
    with pytest.raises(SlmxError, match=r"^this command needs no_such_module: pip install "), needs("bench"):
        importlib.import_module("no_such_module")


@pytest.mark.parametrize(
    ("extra", "module", "arguments"),
    [
        ("bench", "jinja2", ("bench", "--quick", "--out", "out")),
        ("bench", "matplotlib", ("bench", "--quick", "--out", "out")),
        ("bench", "sacrebleu", ("bench", "--quick", "--out", "out")),
        ("train", "ftfy", ("prepare", "stories.txt", "--out", "out")),
        ("train", "tokenizers", ("prepare", "stories.txt", "--out", "out")),
        ("train", "matplotlib", ("train", "--text", "stories.txt", "--out", "out")),
        ("train", "tokenizers", ("import", "model", "--out", "out")),
        ("evaluate", "matplotlib", ("evaluate", "nano", "--suite", "pairs", "--out", "out")),
        ("evaluate", "sacrebleu", ("evaluate", "nano", "--suite", "stories", "--text", "stories.txt")),
        (
            "evaluate",
            "openai",
            ("evaluate", "nano", "--text", "a", "--suite", "judge", "--judge-url", "http://a", "--judge-model", "b"),
        ),
        ("export", "transformers", ("evaluate", "nano", "--text", "stories.txt", "--scorer", "model", "--out", "out")),
    ],
    ids=lambda one: one if isinstance(one, str) else one[0],
)
def test_what_is_missing_is_said_before_the_work(
    extra: str,
    module: str,
    arguments: tuple[str, ...],
    slmx: Slmx,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "stories.txt").write_text("Once upon a time.")
    monkeypatch.setitem(sys.modules, module, None)
    assert slmx.refuses(*arguments) == f"this command needs {module}: {install.pip_line(extra)}"
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder in which nobody can write")
def test_matplotlib_does_not_warn_of_a_home_folder_that_cannot_be_written() -> None:
    """In a process of its own, because matplotlib looks for the folder once."""
    pytest.importorskip("matplotlib", reason="needs the extra [train]")
    plot = "from matplotlib.figure import Figure; Figure()"
    told = "from slm.console.errors import require; require('train', 'matplotlib'); "
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "MPL"))}
    for code, is_silent in ((plot, False), (told + plot, True)):
        command = [sys.executable, "-c", code]
        ran = subprocess.run(
            command, env={**keep, "HOME": "/proc/none"}, capture_output=True, text=True, check=True, timeout=60
        )
        assert (ran.stderr == "") == is_silent, ran.stderr
