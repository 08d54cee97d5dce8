"""Text for a terminal holds nothing that acts on it."""

from __future__ import annotations

import sys

from slm.console.plain_text import MAX_TEXT, as_plain_text, escaped, is_plain_text

ODD = "é \x1b[31m \x7f \x9b1m \ud800 \n \u2028 \u2029"


def test_signs_that_act_on_a_terminal_are_replaced() -> None:
    assert as_plain_text(ODD) == "é ?[31m ? ?1m ? ? ? ?"
    assert escaped(ODD) == r"é \x1b[31m \x7f \x9b1m \ud800 \n \u2028 \u2029"
    assert is_plain_text(as_plain_text(ODD))
    assert is_plain_text(escaped(ODD))
    assert len(as_plain_text("x" * 5000)) == MAX_TEXT


def test_exactly_controls_surrogates_and_line_ends_are_unsafe() -> None:
    controls = {*range(32), *range(127, 160), *range(0xD800, 0xE000), 0x2028, 0x2029}
    assert {code for code in range(sys.maxunicode + 1) if not is_plain_text(chr(code))} == controls
