"""The page of `slmx serve` on a server of a test, and what a test does with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from runtimes.serve.endpoints.page import load_page
from tests.runtimes.serve.apps import ENDLESS, Whole, serving_whole
from tests.runtimes.web.browser import is_loaded

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

SETTINGS = {"seed": "7", "maxTokens": "60", "temperature": "0.8", "topP": "0.9", "topK": "30"}
FIELDS = {"seed": 7, "max_tokens": 60, "temperature": 0.8, "top_p": 0.9, "top_k": 30}
NOTICE = ".notice[data-key=prompt]"


@contextmanager
def serving_page(**options: Any) -> Iterator[Whole]:  # noqa: ANN401  # those of serving_whole
    """Serves the shipped nano with the page."""
    with serving_whole(page=load_page(), **options) as server:
        yield server


def opened(page: Page, url: str, *, instant: bool = True) -> None:
    """Opens the page and waits until it can write."""
    page.goto(url)
    is_loaded(page)
    if instant:
        page.locator("#pace").evaluate("element => { element.value = 'instant'; }")


def make_endless(page: Page) -> None:
    """Lets the page ask for stories that go on until they are stopped, and count as others do."""

    def change(route: Route) -> None:
        fields = json.loads(route.request.post_data or "") | {**ENDLESS, "prompt": "Once"}
        route.continue_(post_data=json.dumps(fields))

    page.route("**/v1/completions", change)
