"""A line for people breaks between words on a terminal, and stays whole in a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from slm.console.notice import print_notice

LINE = "trains without [b]torch.compile[/b], which is slower: no C++ compiler (c++) is on PATH here, 12 times"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_no_word_is_cut_on_a_terminal_and_no_line_in_a_log(is_terminal: bool) -> None:
    file = io.StringIO()
    print_notice(Console(file=file, width=40, force_terminal=is_terminal, color_system=None), LINE)
    lines = file.getvalue().splitlines()
    assert [word for line in lines for word in line.split()] == LINE.split()
    assert all(len(line) <= 40 for line in lines) if is_terminal else lines == [LINE]
