"""Servers for real clients and test suites, each `slmx serve` in a process of its own.

These tests have an environment of their own, `make suites`, without torch. There, this is the only conftest.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

KEY = "a-key-of-the-suites"


@contextmanager
def serving(folder: Path, *options: str, key: bool = False) -> Iterator[str]:
    """Runs `slmx serve nano` inside the block. Afterwards it must end well and its log hold no internal error."""
    pytest.importorskip("uvicorn", reason="needs the extra [serve]")
    from tests.runtimes.serve.processes import slmx_serve

    with slmx_serve(folder, "nano", *options, **({"SLMX_API_KEY": KEY} if key else {})) as process:
        yield process.url
        assert process.end() == 0
        assert "Traceback" not in process.told()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server whose key is `KEY`."""
    with serving(tmp_path_factory.mktemp("server"), key=True) as url:
        yield url


@pytest.fixture(scope="session")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that writes one story and lets none wait. It has no key."""
    with serving(tmp_path_factory.mktemp("narrow"), "--max-batch", "1", "--queue", "0") as url:
        yield url


@pytest.fixture(scope="session")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server whose stories are short, so that many requests take little time. Its key is `KEY`."""
    with serving(tmp_path_factory.mktemp("described"), "--max-tokens", "8", key=True) as url:
        yield url
