"""What the page of `slmx serve` says if the server asks for a key, is full, stops or is gone."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("uvicorn", reason="needs the extra [serve]")

from tests.chromium import IN_CHROMIUM
from tests.runtimes.serve.apps import ENDLESS, KEY, keyed
from tests.runtimes.serve.test_limits import request
from tests.runtimes.web.browser import WRITTEN, is_loaded, write
from tests.runtimes.web.served_pages import FIELDS, NOTICE, SETTINGS, make_endless, opened, serving_page
from tests.waiting import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = IN_CHROMIUM


def test_a_key_is_asked_for_and_a_wrong_one_again(context: BrowserContext, capfd: pytest.CaptureFixture[str]) -> None:
    with serving_page(settings=keyed()) as server:
        addresses: list[str] = []
        said: list[str] = []
        context.on("request", lambda request: addresses.append(request.url))
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.goto(server.url)
        page.wait_for_selector("#key-form")
        assert page.evaluate("document.activeElement.id") == "key"
        assert page.get_by_label("Key of the server").get_attribute("type") == "password"
        assert page.locator("#key").get_attribute("autocomplete") == "off"
        assert page.locator("#loading").is_hidden()
        page.keyboard.type("a-wrong-key")
        page.keyboard.press("Enter")
        page.locator("#key-why", has_text="This key is wrong").wait_for()
        assert page.locator("#key").get_attribute("aria-invalid") == "true"
        assert page.input_value("#key") == ""
        assert page.evaluate("sessionStorage.getItem('slmx-key')") is None
        page.keyboard.type(KEY)
        page.keyboard.press("Enter")
        page.wait_for_selector("#key-form", state="detached")
        assert page.evaluate("document.activeElement.id") == "prompt"
        authorized = server.http.post(
            "/v1/completions",
            json={"prompt": "Once upon a time", **FIELDS},
            headers={"Authorization": f"Bearer {KEY}"},
        )
        expected = authorized.json()["choices"][0]["text"]
        assert write(page, **SETTINGS) == f"Once upon a time{expected}"
        page.reload()
        is_loaded(page)
        assert page.locator("#key-form").count() == 0
        assert page.evaluate("[Object.keys(localStorage).length, document.cookie]") == [0, ""]
        other = context.new_page()  # another tab has another sessionStorage
        other.goto(server.url)
        other.wait_for_selector("#key-form")
    everything = "".join((*addresses, *said, *capfd.readouterr()))
    assert KEY not in everything
    assert "a-wrong-key" not in everything


def test_a_story_that_was_asked_for_before_the_key_is_written_after_it(page: Page) -> None:
    with serving_page(settings=keyed()) as server:
        page.goto(f"{server.url}#prompt=One+day&s=3&n=10")
        page.wait_for_selector("#key-form")
        page.click("#write")
        assert page.locator("#write").inner_text() == "Waiting …"
        page.fill("#key", KEY)
        page.press("#key", "Enter")
        page.wait_for_selector(WRITTEN)
        assert page.locator("#story").inner_text().startswith("One day")


def test_a_full_queue_is_said_and_the_story_stays(page: Page) -> None:
    with serving_page(slots=1, queue=1) as server:
        opened(page, server.url)
        story = write(page, maxTokens="8")
        with server.connect() as first, server.connect() as second:
            for client in (first, second):
                client.sendall(request(**ENDLESS))
            figures = server.scheduler.figures
            wait_until(lambda: figures().running + figures().waiting == 2)
            page.fill("#prompt", "Then it rained.")
            page.click("#write")
            page.wait_for_selector(NOTICE)
            said = page.locator(f"{NOTICE} p").inner_text()
            assert re.fullmatch(
                r"The server has more stories to write than it takes\. Try again in \d+ seconds?\.", said
            )
            assert page.locator("#story").inner_text() == story
            assert page.input_value("#prompt") == "Then it rained."
            page.fill("#prompt", "")
            page.click("#retry")
            page.wait_for_selector(NOTICE)
            wait_until(lambda: page.locator("#story").inner_text() == story)
        wait_until(lambda: server.scheduler.figures().running == 0)
        page.click("#write")
        page.wait_for_selector(WRITTEN)
        assert page.locator("#story").inner_text().startswith(story)
        assert page.locator(NOTICE).count() == 0


def test_a_server_that_stops_in_a_story_is_said_and_the_text_stays(page: Page) -> None:
    with serving_page() as server:
        opened(page, server.url, instant=False)
        make_endless(page)
        page.fill("#prompt", "Once")
        page.click("#write")
        page.locator("#story .word").nth(4).wait_for()
        ending = threading.Timer(0.1, lambda: setattr(server.server, "should_exit", True))
        ending.start()
        page.wait_for_selector(NOTICE)
        ending.join()
    assert re.match(r"The (server is stopping|connection to the server broke)", page.locator(NOTICE).inner_text())
    assert page.locator("#story .word").count() >= 5
    story = page.locator("#story").inner_text()
    page.unroute_all()
    page.click("#write")
    page.locator(NOTICE, has_text="out of reach").wait_for()
    assert page.locator("#story").inner_text() == story


def test_a_server_that_is_gone_is_said_when_another_model_is_asked_for(page: Page) -> None:
    page.route("**/v1/models", lambda route: route.abort())
    with serving_page() as server:
        page.goto(server.url)
        notice = page.locator(".notice[data-key=failed]")
        notice.wait_for()
        assert notice.inner_text().startswith("The server is out of reach.")
        page.unroute_all()
        notice.locator("button").click()
        is_loaded(page)
        assert page.locator("#write").is_enabled()
