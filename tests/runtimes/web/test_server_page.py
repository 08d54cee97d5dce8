"""The page of `slmx serve` in a real Chromium: its stories come from the API of the server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import pytest

pytest.importorskip("uvicorn", reason="needs the extra [serve]")

from runtimes.bundle.chat_template import CLOSING
from tests.chromium import IN_CHROMIUM
from tests.runtimes.serve.apps import KEY, Whole, keyed
from tests.runtimes.web.browser import WRITTEN, is_loaded, plain_host, set_values, works_offline, write
from tests.runtimes.web.served_pages import FIELDS, NOTICE, SETTINGS, make_endless, opened, serving_page
from tests.runtimes.web.test_page import AXE
from tests.waiting import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Request

pytestmark = IN_CHROMIUM


@pytest.fixture(scope="module")
def server() -> Iterator[Whole]:
    """A server without a key. The tests leave no story running."""
    with serving_page() as server:
        yield server


def story_of(server: Whole, prompt: str, **fields: object) -> str:
    """The story that the API writes."""
    answer = server.ask(prompt=prompt, **{**FIELDS, **fields})
    return prompt + str(answer.json()["choices"][0]["text"])


def test_a_story_is_that_of_the_api_with_the_same_seed(page: Page, server: Whole) -> None:
    page.goto(server.url)
    assert write(page, **SETTINGS) == story_of(server, "Once upon a time")
    figures = page.locator("#figures").inner_text()
    assert re.fullmatch(r"[\d,]+ tokens/s · nano int8 on this server · seed 7", figures)
    assert page.locator("#ending").inner_text() == "Stopped at the length that you set."
    assert "runs on this server" in page.locator("#tagline").inner_text()
    assert page.locator("#key-form").count() == 0


def test_the_seed_of_a_story_without_one_is_shown_and_is_in_the_link(context: BrowserContext, server: Whole) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(server.url)
    story = write(page, "Tom had a red ball.", maxTokens="40")
    (seed,) = re.findall(r"seed (\d+)", page.locator("#figures").inner_text())
    answer = server.ask(prompt="Tom had a red ball.", seed=int(seed), max_tokens=40)
    assert f"Tom had a red ball.{answer.json()['choices'][0]['text']}" == story
    page.click("#share")
    page.wait_for_selector(".notice[data-key=copied]")
    link = page.evaluate("navigator.clipboard.readText()")
    assert f"s={seed}" in link
    other = context.new_page()
    opened(other, link)
    other.click("#write")
    other.wait_for_selector(WRITTEN)
    assert other.locator("#story").inner_text() == story


def test_go_on_try_again_undo_and_a_reload(page: Page, server: Whole) -> None:
    page.goto(server.url)
    first = write(page, maxTokens="12")
    page.fill("#prompt", "Then a dragon came.")
    page.click("#write")
    page.wait_for_selector(WRITTEN)
    page.click("#retry")
    page.wait_for_selector(WRITTEN)
    assert page.locator("#story").inner_text().startswith(f"{first} Then a dragon came.")
    page.reload()
    is_loaded(page)
    page.click("#undo")
    assert page.locator("#story").inner_text() == first
    assert page.input_value("#prompt") == "Then a dragon came."


def answer_nothing(page: Page) -> None:
    """Lets each story end at once, as one that the model takes to be over."""
    choice = {"index": 0, "text": "", "token_ids": [], "finish_reason": "stop", "finish_detail": "end of text"}
    body = f"data: {json.dumps({'seed': 1, 'choices': [choice]})}\n\ndata: [DONE]\n\n"
    page.route("**/v1/completions", lambda route: route.fulfill(body=body, content_type="text/event-stream"))


def test_a_passage_comes_back_if_the_next_attempt_writes_nothing(page: Page, server: Whole) -> None:
    opened(page, server.url)
    story = write(page, maxTokens="12")
    answer_nothing(page)
    page.click("#retry")
    page.locator("#ending", has_text="the story is over").wait_for()
    assert page.locator("#story").inner_text() == story
    page.unroute_all()
    page.click("#retry")
    page.wait_for_selector(WRITTEN)
    assert page.locator("#story .word").count() > 0


def test_words_that_begin_with_a_closing_sign_follow_the_story_without_a_space(page: Page, server: Whole) -> None:
    opened(page, server.url)
    answer_nothing(page)
    for words in ("Once", *sorted(CLOSING), "upon"):
        page.fill("#prompt", words)
        page.click("#write")
        page.locator("#ending", has_text="the story is over").wait_for()
    assert page.locator("#story").inner_text() == f"Once{''.join(sorted(CLOSING))} upon"


def test_go_on_continues_the_whole_text(page: Page, server: Whole) -> None:
    asked: list[str] = []

    def note(request: Request) -> None:
        if request.url.endswith("/v1/completions"):
            asked.append(json.loads(request.post_data or "{}")["prompt"])

    page.on("request", note)
    page.goto(server.url)
    first = write(page, **SETTINGS)
    page.fill("#prompt", "Then a dragon came.")
    page.click("#write")
    page.wait_for_selector(WRITTEN)
    second = page.locator("#story").inner_text()
    page.click("#write")
    page.wait_for_selector(WRITTEN)
    third = page.locator("#story").inner_text()
    space = "" if first.endswith("\n") else " "
    assert asked == ["Once upon a time", f"{first}{space}Then a dragon came.", second]
    assert second == story_of(server, asked[1])
    assert third == story_of(server, second)


def test_nothing_of_the_offline_page_is_loaded_and_nothing_of_another_origin(
    context: BrowserContext, server: Whole
) -> None:
    requests: list[str] = []
    context.on("request", lambda request: requests.append(request.url))
    page = context.new_page()
    page.goto(server.url)
    write(page, maxTokens="8")
    assert {urlsplit(url).netloc for url in requests} == {urlsplit(server.url).netloc}
    assert {urlsplit(url).path for url in requests} <= {
        "/",
        "/server.js",
        "/style.css",
        "/icon.svg",
        "/v1/models",
        "/v1/completions",
    }
    assert page.evaluate("navigator.serviceWorker.getRegistrations().then((found) => found.length)") == 0


def test_stop_ends_the_work_of_the_server(page: Page) -> None:
    with serving_page() as server:
        opened(page, server.url)
        make_endless(page)
        page.fill("#prompt", "Once")
        page.click("#write")
        page.locator("#story .word").nth(4).wait_for()
        assert server.scheduler.figures().running == 1
        page.keyboard.press("Escape")
        assert page.locator("#ending").inner_text() == "Stopped."
        wait_until(lambda: server.scheduler.figures().running == 0)
        metrics = server.http.get("/metrics").text
        assert re.search(r"slmx_stories_cancelled_total\{[^}]*\} 1\b", metrics), metrics
        assert re.search(r"slmx_stories_running\{[^}]*\} 0\b", metrics), metrics
        story = page.locator("#story").inner_text()
        assert re.search(r"tokens/s .* seed \d+", page.locator("#figures").inner_text())
        page.wait_for_timeout(200)
        assert page.locator("#story").inner_text() == story
        assert page.locator(".notice").count() == 0


def test_words_come_at_reading_pace(page: Page, server: Whole) -> None:
    opened(page, server.url, instant=False)
    page.fill("#prompt", "Once upon a time")
    page.click("#write")
    page.locator("#story .word").nth(4).wait_for()
    page.keyboard.press("Escape")
    assert 5 <= page.locator("#story .word").count() < 40


def test_a_text_that_is_too_long_is_given_back(page: Page, server: Whole) -> None:
    opened(page, server.url)
    prompt = "word " * 400
    page.fill("#prompt", prompt)
    page.click("#write")
    page.wait_for_selector(NOTICE)
    assert page.locator(f"{NOTICE} p").inner_text() == "The text is longer than this model can read. Shorten it."
    assert page.input_value("#prompt").strip() == prompt.strip()


def test_the_offline_page_of_the_same_address_gives_way(context: BrowserContext, site: Path) -> None:
    """A service worker kept the page of `slmx web`. Then `slmx serve` runs at the same address."""
    page = context.new_page()
    with plain_host(site) as (url, _):
        page.goto(url)
        story = write(page, maxTokens="12")
        works_offline(page)
    with serving_page(port=urlsplit(url).port) as server:
        page.goto(server.url)
        page.locator("h1", has_text="on this server").wait_for()
        is_loaded(page)
        assert page.locator("#story").inner_text() == story
        assert page.evaluate("caches.keys()") == []
        page.reload()
        assert "on this server" in page.locator("h1").inner_text()
        assert page.evaluate("navigator.serviceWorker.getRegistrations().then((found) => found.length)") == 0
        page.click("#write")
        page.locator("#figures", has_text="on this server").wait_for()


def test_a_phone_of_320_pixels_shows_everything(chromium: Browser) -> None:
    context = chromium.new_context(viewport={"width": 320, "height": 640}, reduced_motion="reduce")
    with serving_page(settings=keyed()) as server:
        page = context.new_page()
        page.goto(server.url)
        page.wait_for_selector("#key-form")
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        page.fill("#key", KEY)
        page.press("#key", "Enter")
        write(page, maxTokens="30")
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        page.fill("#prompt", "word " * 400)
        page.click("#write")
        page.wait_for_selector(NOTICE)
        assert page.locator(NOTICE).evaluate("element => element.getBoundingClientRect().top") > -1  # rounding
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
    context.close()


@pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core: npm ci in runtimes/web/app")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_barrier(scheme: Literal["light", "dark"], chromium: Browser) -> None:
    context = chromium.new_context(color_scheme=scheme, bypass_csp=True)
    with serving_page(settings=keyed()) as server:
        page = context.new_page()
        page.goto(server.url)
        page.add_script_tag(path=AXE)

        def check() -> None:
            found = page.evaluate("axe.run()")
            assert [f"{item['id']}: {item['nodes'][0]['html']}" for item in found["violations"]] == []

        page.wait_for_selector("#key-form")
        check()
        page.fill("#key", "a-wrong-key")
        page.press("#key", "Enter")
        page.locator("#key-why", has_text="wrong").wait_for()
        check()
        page.fill("#key", KEY)
        page.press("#key", "Enter")
        is_loaded(page)
        set_values(page)
        check()
        write(page, maxTokens="30")
        page.wait_for_timeout(500)  # the words have appeared
        check()
    context.close()
