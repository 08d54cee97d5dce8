"""Links, reloads, other models and new versions: in a real Chromium, what a person wrote is never lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.chromium import IN_CHROMIUM
from tests.conftest import run_slmx
from tests.runtimes.web.browser import WRITTEN, is_loaded, plain_host, works_offline, write

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page, Route

pytestmark = IN_CHROMIUM


def test_a_link_carries_the_beginning_and_the_settings(context: BrowserContext, page: Page, host: str) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(host)
    story = write(page, temperature="0.7", maxTokens="30")
    page.click("#share")
    page.wait_for_selector(".notice[data-key=copied]")
    link = page.evaluate("navigator.clipboard.readText()")
    other = context.new_page()
    other.goto(link)
    is_loaded(other)
    other.locator("#pace").evaluate("element => { element.value = 'instant'; }")
    other.click("#write")
    other.wait_for_selector(WRITTEN)
    assert other.locator("#story").inner_text() == story


@pytest.mark.parametrize("fragment", ["t=99", "t=0.123", "k=1.5", "s=-1", "n=0", "p=NaN", "t=<b>", "r=", "m=1e999"])
def test_a_link_with_nonsense_says_what_it_ignored(fragment: str, page: Page, host: str) -> None:
    page.goto(f"{host}#prompt=One%20day&model=no-such-model&{fragment}")
    assert page.locator(".notice[data-key=link]").inner_text().startswith("The link has values")
    assert write(page, "One day", maxTokens="4").startswith("One day")


def test_a_reload_keeps_the_story(page: Page, host: str) -> None:
    page.goto(host)
    story = write(page, maxTokens="20")
    page.reload()
    is_loaded(page)
    assert page.locator("#story").inner_text() == story


def test_a_story_from_a_link_survives_a_reload_and_so_do_typed_words(page: Page, host: str) -> None:
    page.goto(f"{host}#prompt=One+day&s=7&n=12")
    story = write(page, "One day")
    page.fill("#prompt", "Then it rained.")
    page.reload()
    is_loaded(page)
    assert page.locator("#story").inner_text() == story
    assert page.input_value("#prompt") == "Then it rained."


def test_a_story_is_kept_while_it_is_written(page: Page, host: str) -> None:
    page.goto(host)
    is_loaded(page)
    page.fill("#prompt", "Once upon a time")
    page.click("#write")
    page.locator("#story .word").nth(20).wait_for()
    kept = json.loads(page.evaluate("sessionStorage.getItem('slmx-story:' + location.pathname)"))
    assert len(kept["passages"][1]["ids"]) > 3


def test_a_waiting_story_is_forgotten_with_a_new_one(page: Page, host: str) -> None:
    def later(route: Route) -> None:
        page.wait_for_timeout(1500)
        route.continue_()

    page.route("**/*.onnx*", later)
    page.goto(host)
    page.fill("#prompt", "Old words")
    page.click("#write")
    assert page.locator("#write").inner_text() == "Waiting …"
    page.keyboard.press("Escape")
    page.fill("#prompt", "New words")
    is_loaded(page)
    page.wait_for_timeout(300)
    assert page.locator("#story").is_hidden()
    assert page.input_value("#prompt") == "New words"


def test_another_model_goes_on_with_the_story_and_it_can_be_undone(page: Page, host: str) -> None:
    page.goto(host)
    first = write(page, maxTokens="12")
    page.select_option("#model", "micro")
    page.locator("#figures", has_text="micro").wait_for()
    page.click("#write")
    page.wait_for_selector(WRITTEN)
    assert page.locator("#story").inner_text().startswith(first)
    page.click("#undo")
    assert page.locator("#story").inner_text() == first
    page.reload()
    page.locator("#figures", has_text="micro").wait_for()


def test_a_link_that_is_followed_in_an_open_page_asks_first(page: Page, host: str) -> None:
    page.goto(host)
    story = write(page, maxTokens="12")
    page.evaluate("location.hash = '#prompt=Other&model=micro'")
    notice = page.locator(".notice[data-key=followed]")
    notice.wait_for()
    assert page.locator("#story").inner_text() == story
    notice.locator("button").click()
    assert page.input_value("#prompt") == "Other"
    page.locator("#figures", has_text="micro").wait_for()


def test_a_link_to_a_later_passage_is_that_of_the_first(context: BrowserContext, page: Page, host: str) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(host)
    write(page, maxTokens="12")
    page.click("#share")
    page.locator(".notice[data-key=copied]").wait_for()
    link = page.evaluate("navigator.clipboard.readText()")
    page.click("#write")
    page.wait_for_selector(WRITTEN)
    page.reload()
    is_loaded(page)
    page.click("#share")
    page.locator(".notice[data-key=copied]").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == link


def test_a_model_that_the_site_does_not_have_is_said(page: Page, host: str) -> None:
    page.goto(f"{host}#prompt=x&model=constructor")
    notice = page.locator(".notice[data-key=model]")
    notice.wait_for()
    assert notice.inner_text().startswith("This site has no model named constructor. It loads nano.")


def test_a_new_version_reloads_only_the_tab_that_asked(context: BrowserContext, site: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(site, tmp_path / "site")
    with plain_host(copy) as (url, _):
        asks, other = context.new_page(), context.new_page()
        for page in (asks, other):
            page.goto(url)
            is_loaded(page)
            works_offline(page)
            page.reload()
        other.fill("#prompt", "My words")
        made = run_slmx("web", "nano", "--out", str(copy), "--force", cwd=tmp_path)
        assert made.returncode == 0, made.stderr
        asks.reload()
        with asks.expect_navigation():
            asks.locator(".notice[data-key=update] button").click()
        other.locator(".notice", has_text="Another tab").wait_for()
        assert other.input_value("#prompt") == "My words"


def test_an_older_site_is_replaced_whole(context: BrowserContext, site: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(site, tmp_path / "site")
    with plain_host(copy) as (url, _):
        page = context.new_page()
        page.goto(url)
        is_loaded(page)
        works_offline(page)
        made = run_slmx("web", "nano", "--out", str(copy), "--force", cwd=tmp_path)
        assert made.returncode == 0, made.stderr
        page.reload()
        with page.expect_navigation():
            page.locator(".notice[data-key=update] button").click()
        is_loaded(page)
        assert page.locator("#model option").count() == 1
        names = page.evaluate("caches.keys()")
        assert len(names) == 1
        write(page, maxTokens="4")
