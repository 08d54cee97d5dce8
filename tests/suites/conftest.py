"""Servers for real clients and test suites, each `slmx serve` in a process of its own.

These tests have an environment of their own, `make suites`, without torch. There, this is the only conftest.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

KEY = "a-key-of-the-suites"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of nano, whose key is `KEY`."""
    pytest.importorskip("uvicorn", reason="needs the extra [serve]")
    from tests.runtimes.serve.processes import slmx_serve

    with slmx_serve(tmp_path_factory.mktemp("server"), "nano", SLMX_API_KEY=KEY) as process:
        yield process.url
        assert process.end() == 0
    assert "internal error" not in process.told()


@pytest.fixture(scope="session")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of nano that writes one story and lets none wait. It has no key."""
    pytest.importorskip("uvicorn", reason="needs the extra [serve]")
    from tests.runtimes.serve.processes import slmx_serve

    with slmx_serve(tmp_path_factory.mktemp("narrow"), "nano", "--max-batch", "1", "--queue", "0") as process:
        yield process.url
        assert process.end() == 0
