"""The search of the documents' site in a real Chromium, in both themes, from a plain host and without a network."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

import pytest

from tests.chromium import IN_CHROMIUM
from tests.runtimes.web.browser import plain_host

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parents[1]
MKDOCS = ROOT / ".venv" / "docs" / "bin" / "mkdocs"
pytestmark = [*IN_CHROMIUM, pytest.mark.skipif(not MKDOCS.is_file(), reason="needs .venv/docs: make docs")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [str(MKDOCS), "build", "--quiet", "--strict", "--site-dir", str(folder)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    ran = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return folder


def target_exists(site: Path, address: str) -> bool:
    """Whether an address on the site is that of a page and of an element in it."""
    parts = urlsplit(address)
    page = site / unquote(parts.path).lstrip("/")
    return page.is_file() and (not parts.fragment or f'id="{unquote(parts.fragment)}"' in page.read_text("utf-8"))


@pytest.mark.parametrize(("theme", "scheme"), [("light", "default"), ("dark", "slate")])
def test_the_search_leads_to_pages_and_asks_no_other_host(
    chromium: Browser, site: Path, theme: Literal["light", "dark"], scheme: str
) -> None:
    with plain_host(site) as (host, asked):
        context = chromium.new_context(color_scheme=theme)
        page = context.new_page()
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(host)
        assert page.locator("body").get_attribute("data-md-color-scheme") == scheme
        query = page.locator("[data-md-component=search-query]")
        query.click()
        page.get_by_text("Type to start searching").wait_for()  # what is typed before the index is read can be lost
        query.press_sequentially("int8")
        links = page.locator(".md-search-result__link")
        links.first.wait_for()
        found = [str(link.get_attribute("href")) for link in links.all()]
        assert len(found) >= 5
        assert all(address.startswith(host) for address in found)
        assert [address for address in found if not target_exists(site, address)] == []
        links.first.click()
        page.wait_for_url(lambda address: urlsplit(address).path == urlsplit(found[0]).path)
        assert "int8" in page.locator("article").inner_text()
        context.close()
    assert any("search_index" in line for line in asked)
    assert [address for address in requests if not re.match(rf"{re.escape(host)}|data:|blob:", address)] == []
