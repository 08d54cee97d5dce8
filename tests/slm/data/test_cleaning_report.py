"""What `slmx prepare` tells about the stories that it read, dropped and cut, and its refusals if too few are left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from slm.console.errors import SlmxError
from slm.data.prepare import PrepareSettings, is_held_out, prepare
from tests.conftest import as_corpus
from tests.runs import QUIET
from tests.slm.data.conftest import write

pytestmark = pytest.mark.slow


def test_empty_rows_and_cuts_are_in_the_record_and_reported(
    plan: PrepareSettings, stories: list[str], tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = max(map(len, stories))
    monkeypatch.setattr("slm.data.stories.LONGEST_STORY", longest)
    monkeypatch.setattr("slm.data.cleaning_report.LONGEST_STORY", longest)
    path = write(tmp_path / "a.csv", [*stories, "", " ", "One day. " + "So it went on. " * (longest // 10)])
    counts = prepare(replace(plan, sources=(str(path),)), console).record["cleaning"]["train"]
    assert (counts["read"], counts["empty"], counts["cut"]) == (304, 2, 1)
    line = (
        f"train sources: 303 stories, 302 parts kept; cut where they are longer than {longest:,} characters: 1 times; "
    )
    assert f"{line}dropped: 2 without a letter or digit\n" in console.export_text()


def test_one_long_text_is_told_that_nothing_separates_its_stories(
    plan: PrepareSettings, stories: list[str], tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slm.data.stories.LONGEST_STORY", 400)
    monkeypatch.setattr("slm.data.cleaning_report.LONGEST_STORY", 400)
    path = tmp_path / "one line.txt"
    path.write_text(" ".join(" ".join(story.split()) for story in stories), "utf-8")
    prepare(replace(plan, sources=(str(path),)), console)
    (line,) = [line for line in console.export_text().splitlines() if line.startswith("train sources: ")]
    assert line.startswith("train sources: 1 story, ")
    assert line.endswith(
        "; nothing separates stories there: put a blank line or <|endoftext|> between them if it holds more than one"
    )


def test_rows_of_a_table_need_no_blank_lines(plan: PrepareSettings, tmp_path: Path) -> None:
    path = write(tmp_path / "few.jsonl", ["The cat sat."])
    with pytest.raises(SlmxError, match=r"^1 story is too few .*; give more rows, or give some with --valid$"):
        prepare(replace(plan, sources=(str(path),)), QUIET)


@pytest.mark.parametrize(("between", "shown"), [("\n\n", "blank lines"), ("\n<|endoftext|>\n", "<|endoftext|>")])
def test_the_separator_that_was_found_is_reported(
    plan: PrepareSettings, stories: list[str], tmp_path: Path, console: Console, between: str, shown: str
) -> None:
    (tmp_path / "a.txt").write_text(between.join(stories), "utf-8")
    prepare(replace(plan, sources=(str(tmp_path / "a.txt"),)), console)
    assert f"train sources: {len(stories)} stories between {shown}, {len(stories)} kept\n" in console.export_text()


def test_splits_that_are_too_small_are_refused(plan: PrepareSettings, tmp_path: Path, stories: list[str]) -> None:
    trained = [story for story in stories if not is_held_out(story)]
    held = [story for story in stories if is_held_out(story)]
    path = tmp_path / "some.txt"
    for content, message in (
        (
            trained[:40],
            "40 stories are too few to train on and to hold one in 20 out for validation; "
            r"give more stories \(100 are enough\), or give some with --valid$",
        ),
        (trained[:1], "1 story is too few to train on and to hold one in 20 out for validation; put a blank line"),
        (held[:3], "3 stories are too few to train on"),
        (trained[:1] * 50, "too few stories are left to train on: of 50, these were dropped: 49 repeated$"),
        (["!"] * 50, "too few stories are left to train on: of 50, these were dropped: 50 without a letter or digit$"),
        (
            ["The cat sat. And then the"],
            "1 story is too few to train on and to hold .* out for validation; put a blank",
        ),
        (
            [*trained, held[0]],
            "the valid split is .* too short for one context of 256: .*, or some with --valid; a new",
        ),
    ):
        path.write_text(as_corpus(content), "utf-8")
        with pytest.raises(SlmxError, match=message):
            prepare(replace(plan, sources=(str(path),), context=256), QUIET)
        assert not plan.out.exists()
    prepare(replace(plan, sources=(str(path),)), QUIET)


def test_few_stories_for_validation_are_told(
    plan: PrepareSettings, tmp_path: Path, stories: list[str], console: Console
) -> None:
    held = [story for story in stories if is_held_out(story)]
    path = tmp_path / "some.txt"
    for count, told in ((19, True), (20, False)):
        valid = [f"{story} {number}." for number, story in enumerate(held * 20)][:count]
        (tmp_path / "valid.txt").write_text(as_corpus(valid), "utf-8")
        path.write_text(as_corpus(stories), "utf-8")
        made = replace(plan, sources=(str(path),), valid=(str(tmp_path / "valid.txt"),), out=tmp_path / str(count))
        prepare(made, console)
        line = f"{count} stories for validation: too few for exact figures; give more text, or some with --valid"
        assert (line in console.export_text()) is told


def test_a_text_of_another_kind_is_told_how_much_of_it_was_dropped(
    plan: PrepareSettings, tmp_path: Path, stories: list[str], console: Console
) -> None:
    path, dropped = tmp_path / "play.txt", [f"Speech {number}. KING:" for number in range(100)]
    advice = "which do not end where a sentence ends; slmx prepare --no-clean keeps them"
    for count, lines in ((60, []), (100, [f"cleaning dropped 100 of 400 stories (25%), {advice}"])):
        path.write_text(as_corpus([*stories, *dropped[:count]]), "utf-8")
        prepare(replace(plan, sources=(str(path),), force=True), console)
        assert [line for line in console.export_text().splitlines() if "--no-clean" in line] == lines
    path.write_text(as_corpus(dropped), "utf-8")
    with pytest.raises(SlmxError) as caught:
        prepare(replace(plan, sources=(str(path),), force=True), console)
    assert str(caught.value) == (
        f"too few stories are left to train on: cleaning dropped 100 of 100 stories (100%), {advice}"
    )
    prepare(replace(plan, sources=(str(path),), force=True, clean=False), console)
    assert "--no-clean" not in console.export_text()


def test_validation_stories_that_are_all_dropped_are_not_asked_for_again(plan: PrepareSettings, tmp_path: Path) -> None:
    valid = write(tmp_path / "valid.jsonl", ["...", "---"])
    with pytest.raises(SlmxError, match="no story for validation: every story of --valid was dropped; give others"):
        prepare(replace(plan, valid=(str(valid),)), QUIET)
