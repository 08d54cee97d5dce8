"""A browser, a site of both shipped models, and a host for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import run_slmx
from tests.runtimes.web.browser import plain_host
from tests.shared import made_once

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page


@pytest.fixture(scope="module")
def site() -> Path:
    """A site that `slmx web` made, in a path with a space and an accent. Tests must not change it."""

    def make(path: Path) -> None:
        ran = run_slmx("web", "nano", "micro", "--out", str(path / "été 1"), cwd=path.parent)
        assert ran.returncode == 0, ran.stderr

    return made_once("web site", make) / "été 1"


@pytest.fixture(scope="module")
def host(site: Path) -> Iterator[str]:
    with plain_host(site) as (url, _):
        yield url


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    context = chromium.new_context()
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()
