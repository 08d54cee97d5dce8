"""Text in Markdown."""

from __future__ import annotations

import re

from slm.console.plain_text import without_controls

# Characters that mean something in Markdown or HTML. Inside a word, _ means nothing. Some programs read no backslash
# before the characters that have an entity here.
_MARKS = re.compile(r"[\\`*\[\]#|<>&~]|(?<!\w)_|_(?!\w)")
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "~": "&#126;"}


def as_markdown(text: str) -> str:
    """Returns a text as one line of Markdown, in which no character is a mark of Markdown or HTML."""
    plain = without_controls(" ".join(text.splitlines()))
    return _MARKS.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), plain)
