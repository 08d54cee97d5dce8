"""A hook of mkdocs: a page that would load anything from another host is an error."""

from __future__ import annotations

from html.parser import HTMLParser

from mkdocs.exceptions import PluginError
from mkdocs.structure.pages import Page

LOADS = {"script": "src", "img": "src", "source": "srcset", "iframe": "src", "link": "href"}
NAMES_ONLY = ("canonical", "next", "prev")  # links that are not loaded


class Foreign(HTMLParser):
    """Collects the addresses on other hosts that a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Looks at one element."""
        values = dict(attrs)
        address = values.get(LOADS.get(tag, "")) or ""
        if address.startswith(("http:", "https:", "//")) and values.get("rel") not in NAMES_ONLY:
            self.found.append(address)
        if tag in ("pre", "div") and values.get("class") == "mermaid":
            self.found.append("mermaid, which the theme loads for its diagrams")


def on_post_page(output: str, page: Page, **_: object) -> str:
    """Raises PluginError if a page loads something from another host."""
    parser = Foreign()
    parser.feed(output)
    if parser.found:
        raise PluginError(f"{page.file.src_path}: it loads {parser.found[0]}; every file must come with the site")
    return output
