"""The page on which people compare endings: one HTML file that asks the network for nothing and names no model."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.evaluation.rating.questions import Key
from benchmarks.evaluation.stories import Ending
from benchmarks.report.template import filled

HERE = Path(__file__).parent
FORMAT = "slmx ratings 1"


def to_html(key: Key, endings: Mapping[str, Sequence[Ending]]) -> str:
    """Returns the page.

    Args:
        key: The questions. Only their random names and the texts get into the page.
        endings: The endings of each model.
    """
    style, script = ((HERE / name).read_text("utf-8") for name in ("page.css", "page.js"))
    questions = [
        {
            "id": question.id,
            "opening": endings[question.a][question.opening].opening.strip(),
            "a": endings[question.a][question.opening].text.strip(),
            "b": endings[question.b][question.opening].text.strip(),
        }
        for question in key.questions
    ]
    return filled(
        HERE / "page.html.jinja",
        format=FORMAT,
        sheet=key.sheet,
        questions=questions,
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _hash(content: str) -> str:
    """Returns a hash in the form of Content-Security-Policy. A browser runs no other script and no other style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
