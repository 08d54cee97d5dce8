"""The stories that `slmx evaluate` reads of texts and of data sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.evaluation.text import StoryText
from slm.console.errors import SlmxError
from slm.data.prepare import is_held_out


def test_training_is_the_training_split_of_a_data_set_and_text_the_validation_split(tiny_data: Path) -> None:
    held = StoryText.read([str(tiny_data)], "--text").stories
    trained = StoryText.read([str(tiny_data)], "--training").stories
    assert held
    assert all(is_held_out(story) for story in held)
    assert len(trained) > len(held)
    assert not any(is_held_out(story) for story in trained)


@pytest.mark.parametrize("option", ["--text", "--training"])
def test_a_folder_without_stories_names_the_option(option: str, tmp_path: Path) -> None:
    (tmp_path / "none.txt").write_text("\n\n", "utf-8")
    with pytest.raises(SlmxError) as caught:
        StoryText.read([str(tmp_path / "none.txt")], option)
    assert "--text" not in str(caught.value).replace(option, "")


def test_stories_of_the_text_are_no_training() -> None:
    text, training = StoryText("a", ("One.", "Two.")), StoryText("b", ("Three.", "Two.", "Four."))
    assert training.without(text, ["b.txt"]).stories == ("Three.", "Four.")
    with pytest.raises(SlmxError, match=r"^b\.txt: --training has no other story than --text; name other texts$"):
        text.without(text, ["b.txt"])
