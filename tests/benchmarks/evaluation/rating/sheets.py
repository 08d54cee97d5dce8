"""Endings for the tests of the rating sheet, some of them hostile, and files as the page saves them."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.evaluation.rating.page import FORMAT
from benchmarks.evaluation.rating.questions import Key
from benchmarks.evaluation.stories import Ending

ONE, OTHER, TRUE = "nano int8", "micro int8", "true stories"
PAIRS = [(ONE, OTHER)]
HOSTILE = (
    "</script><script>document.title = 'taken'</script>",
    "<img src=x onerror=\"document.title = 'taken'\"> & <b>bold</b>",
    "{{ 7 * 7 }} {% raw %} \u2028 \"quoted\" 'single' `tick` ${1}",
    "A line.\nAnother line.",
)


def endings(count: int = 8) -> dict[str, list[Ending]]:
    """Endings of three models. The first ones are hostile, and the last one of two models is the same."""
    found = {}
    for name, word in ((ONE, "slept"), (OTHER, "ran"), (TRUE, "sang")):
        texts = [f" {HOSTILE[number % len(HOSTILE)]} It {word} {number} times." for number in range(count)]
        found[name] = [Ending(f"Once <i>there</i> was cat {n}.", text, True) for n, text in enumerate(texts)]
    found[OTHER][-1] = found[ONE][-1]
    return found


def saved(
    path: Path, key: Key, answers: dict[str, str], rater: str = "r1", changes: dict[str, object] | None = None
) -> Path:
    """A file as the page saves it."""
    content = {"format": FORMAT, "sheet": key.sheet, "rater": rater, "name": "", "answers": answers}
    path.write_text(json.dumps(content | (changes or {})), "utf-8")
    return path
