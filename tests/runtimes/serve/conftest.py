"""The servers of these tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import bundles

if TYPE_CHECKING:
    from tests.runtimes.serve.servers import Served


@pytest.fixture(scope="package")
def server(tiny_checkpoint: Path) -> Iterator[Served]:
    """A server of the tiny bundle in fp32 that all tests share. They leave no story running."""
    pytest.importorskip("starlette", reason="needs the extra [serve]")
    from tests.runtimes.serve.servers import serving

    with serving(bundles.tiny_bundle(tiny_checkpoint)) as served:
        yield served
