"""The tables of an evaluation, in Markdown and on a terminal."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.evaluation.run import TRUE
from benchmarks.evaluation.tables import tables
from benchmarks.report.markdown import to_markdown
from benchmarks.report.table import Table, table
from benchmarks.report.terminal import GAP, divided, print_table, print_tables
from tests.benchmarks.evaluation.samples import difference, evaluation, full_evaluation, loss, stories

CELLS = st.text("abc 12", min_size=1, max_size=20)


def printed(of: list[Table], width: int) -> str:
    target = io.StringIO()
    print_tables(of, Console(file=target, force_terminal=True, color_system=None, width=width))
    return target.getvalue()


def test_each_suite_has_its_table() -> None:
    headings = [one.heading for one in tables(full_evaluation())]
    assert headings == ["Loss", "Loss by position", "Differences", "Pairs of sentences", "Stories", "Novelty"]


def test_markdown_has_headings_notes_and_rows_on_one_line_each() -> None:
    assert to_markdown(table("A", "How.", ("m|x", "b"), [("1\n2", "3")]) + table("B", "", ("c",), [("4",)])) == (
        "## A\n\nHow.\n\n| m\\|x | b |\n|---|---:|\n| 1 2 | 3 |\n\n## B\n\n| c |\n|---|\n| 4 |"
    )
    assert table("A", "", ("a",), []) == []


def test_a_figure_that_is_blind_to_its_control_is_marked() -> None:
    results = {name: {"stories": stories(0.5, share)} for name, share in (("nano int8", 0.2), (TRUE, 0.1))}
    results["repeater"] = {"stories": stories(0.5, 0.15)}
    found = {one.heading: one for one in tables(evaluation(results))}
    assert [found["Stories"].rows[place][0] for place in found["Stories"].blind] == ["repeated 4-grams (blind)"]
    assert found["Controls"].rows == (("repeater", "repeated 4-grams", "no: the figure is blind to it"),)
    assert found["Controls"].blind == {0}


def test_what_one_story_cannot_tell_is_a_dash() -> None:
    found = evaluation({"nano int8": {"loss": loss(0.7)}}, {"nano int8 against nano fp32": difference(0.01, None)})
    (row,) = next(one for one in tables(found) if one.heading == "Differences").rows
    assert row[2:5] == ("+1.00 %", "no", "-")


@given(
    st.integers(2, 6).flatmap(lambda n: st.lists(st.lists(CELLS, min_size=n, max_size=n), min_size=2, max_size=4)),
    st.integers(10, 90),
)
def test_a_wide_table_is_divided_and_every_column_is_printed(cells: list[list[str]], width: int) -> None:
    one = Table(cells[0], cells[1:])
    groups = divided(one, width)
    assert [column for group in groups for column in group[1:]] == list(range(1, len(cells[0])))
    assert all(group[0] == 0 and len(group) > 1 for group in groups)
    for group in groups:
        widest = [max(len(row[column].strip()) for row in cells[1:]) for column in group]
        assert len(group) == 2 or sum(widest) + GAP * (len(group) - 1) <= width


def test_a_terminal_cuts_no_figure_and_executes_nothing() -> None:
    found = tables(full_evaluation())
    for width in (80, 200):
        text = printed(found, width)
        assert max(map(len, text.splitlines())) <= width
        for one in found:
            assert all(cell in text for row in one.rows for cell in row)
    assert "\x1b" not in printed(table("\x1b[2J", "\x1b[2J", ("a", "\x1b]0;"), [("\x1b[2J", "[bold]")]), 80)


def test_the_best_figures_are_bold_and_blind_rows_are_yellow() -> None:
    one = Table(("a", "b"), (("c", "1"), ("d", "2")), best=frozenset({(0, 1)}), blind=frozenset({1}))
    target = io.StringIO()
    print_table(one, Console(file=target, force_terminal=True, color_system="standard", width=80))
    first, second = target.getvalue().splitlines()[1:]
    assert "\x1b[1m1\x1b[0m" in first
    assert "\x1b[33m" in second
    assert "\x1b[33m" not in first


def test_columns_without_room_are_below_after_the_first_one_again() -> None:
    one = Table(("model", "b" * 30, "c" * 30), (("nano", "1", "2"),))
    assert printed([one], 80).count("nano") == 1
    assert printed([one], 60).count("nano") == 2
    assert divided(one, 60) == [[0, 1], [0, 2]]
    assert divided(replace(one, columns=("a", "b", "c" * 80), keys=2), 60) == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("more", "half", "cells"),
    [
        (0.0079, 0.0006, ["+0.79 ± 0.06 %", "yes"]),
        (0.00001, 0.0006, ["+0.00 ± 0.06 %", "no"]),
        (-8.6e-9, 6.2e-9, ["-9e-07 ± 6e-07 %", "yes"]),
        (0.0, 0.0, ["+0.00 ± 0.00 %", "no"]),
        (0.0079, None, ["+0.79 %", "no"]),
    ],
)
def test_no_difference_that_can_be_told_from_zero_is_shown_as_zero(
    more: float, half: float | None, cells: list[str]
) -> None:
    found = evaluation({}, {"nano portable against nano fp32": difference(more, half)})
    (shown,) = (one for one in tables(found) if one.heading == "Differences")
    assert [list(row[2:4]) for row in shown.rows] == [cells]
