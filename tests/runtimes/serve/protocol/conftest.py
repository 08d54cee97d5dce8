"""An application behind `BoundedProtocol`, and its server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.runtimes.serve.protocol.requests import QUICK

if TYPE_CHECKING:
    from tests.runtimes.serve.sockets import Echo, Running


@pytest.fixture
def app() -> Echo:
    """An application that tells what reached it."""
    from tests.runtimes.serve.sockets import Echo

    return Echo()


@pytest.fixture
def server(app: Echo) -> Iterator[Running]:
    """A server of it with the default limits."""
    from tests.runtimes.serve.sockets import running

    with running(app) as server:
        yield server


@pytest.fixture
def quick(app: Echo) -> Iterator[Running]:
    """A server of it that soon loses patience."""
    from tests.runtimes.serve.sockets import running

    with running(app, QUICK) as server:
        yield server
