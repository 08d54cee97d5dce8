"""What the tests of the page of `slmx web` do with it, and the hosts that serve a site."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from tests.http_server import LocalServer

if TYPE_CHECKING:
    from playwright.sync_api import Page

WRITTEN = "#ending:not([hidden])"
CHANGE = """(element, value) => {
    element.value = value;
    element.dispatchEvent(new Event('input', { bubbles: true }));
}"""


class _PlainHost(SimpleHTTPRequestHandler):
    """What `python -m http.server` sends: no encodings, no headers of ours. It lists what was asked for."""

    asked: ClassVar[list[str]]

    def log_message(self, *args: object) -> None:
        self.asked.append(f"{self.command} {self.path}")


@contextmanager
def plain_host(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serves a folder as `python -m http.server` does; its address, and each request that was answered."""
    asked: list[str] = []
    handler = type("Host", (_PlainHost,), {"asked": asked})
    server = LocalServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", asked
    finally:
        server.shutdown()
        server.server_close()


def set_values(page: Page, **values: str) -> None:
    """Puts values into fields of the settings, as a person would, with their events."""
    page.locator("#settings").evaluate("element => { element.open = true; }")
    for name, value in values.items():
        page.locator(f"#{name}").evaluate(CHANGE, value)


def is_loaded(page: Page) -> None:
    """Waits until the model is loaded."""
    page.wait_for_selector("#loading", state="hidden")


def write(page: Page, prompt: str = "Once upon a time", **values: str) -> str:
    """Writes a story to its end, as fast as it comes, and returns its text.

    Args:
        page: A page.
        prompt: How the story begins.
        values: Values of fields of the settings, by their ids.
    """
    is_loaded(page)
    page.locator("#pace").evaluate("element => { element.value = 'instant'; }")
    set_values(page, **values)
    page.fill("#prompt", prompt)
    page.click("#write")
    page.wait_for_selector(WRITTEN)
    return page.locator("#story").inner_text()


def works_offline(page: Page) -> None:
    """Waits until the page says that it works without a network."""
    page.locator("#figures", has_text="works offline").wait_for()
