"""Which stories the cleaning keeps, repairs and drops."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm.data.cleaning import Cleaner, is_whole, repair, story_key


@pytest.mark.parametrize(
    "story",
    [
        "They went home.",
        "Who was it?",
        'She said, "Good night!"',
        "She said, “Good night!”",
        "They lived happily ever after.(1)",
        "They lived happily (and long.)",
        "And so on...",
        "They slept. *The end*",
        "They slept. THE END",
        "They slept!\n\n- Fin -",
        "“They slept.” The\nend",
        "They slept. ❤",
        "They slept. \U0001f60a",
        "他们回家了。",
        "वे घर चले गए।",
        "ذهبوا إلى البيت؟",
        "A title without any mark",
        "One line\nof a poem\nand another",
    ],
)
def test_stories_that_end_are_whole(story: str) -> None:
    assert is_whole(story)


@pytest.mark.parametrize(
    "story",
    [
        "They went home. Then they",
        "They went home. From that day on,",
        'He was sad. He said, "I want',
        "They were friends. THE",
        "It rained. He gave him a muffin",
        "It rained. I am fine",
        "It rained. They walked to the end",
        "It rained. They slept, the end",
        "She was happy. She said: 'I know",
        "他们回家了。然后他们",
    ],
)
def test_stories_that_break_off_are_not(story: str) -> None:
    assert not is_whole(story)


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        ("â€œHello,â€\x9d she said.", "“Hello,” she said."),
        ("It was ZoÃ« again.", "It was Zoë again."),
        ("â€œHelloâ€¦", "“Hello…"),
    ],
)
def test_mojibake_is_mended(broken: str, mended: str) -> None:
    assert repair(broken) == mended


@pytest.mark.parametrize(
    "story", ["“Curly” quotes, it’s fine — Zoë…", 'Straight "quotes" and it\'s', "ﬁne ½ １", "Größe"]
)
def test_nothing_else_is_changed(story: str) -> None:
    assert repair(story) == story


@given(st.text(alphabet=st.characters(max_codepoint=127)))
def test_ascii_is_never_changed(story: str) -> None:
    assert repair(story) == story


def test_every_cause_is_counted() -> None:
    stories = ["One day. The end.", "  One day. The end.\n", "ZoÃ« slept.", "...", "He saw a dog. He", "Held out."]
    cleaner = Cleaner(held_out={story_key("Held out.")})
    assert list(cleaner(stories)) == ["One day. The end.", "Zoë slept."]
    counts = cleaner.counts
    assert (counts.read, counts.kept, counts.duplicates, counts.repaired) == (6, 2, 1, 1)
    assert (counts.empty, counts.truncated, counts.in_validation) == (1, 1, 1)
    assert counts.bytes_before == sum(len(story.encode()) for story in stories)
    assert counts.bytes_after == len("One day. The end.Zoë slept.".encode())


def test_without_clean_up_only_repeats_and_empty_ones_go() -> None:
    cleaner = Cleaner(thorough=False)
    assert list(cleaner(["ZoÃ« slept.", "He saw a dog. He", "---", "He saw a dog. He"])) == [
        "ZoÃ« slept.",
        "He saw a dog. He",
    ]
    assert (cleaner.counts.truncated, cleaner.counts.repaired) == (0, 0)
    assert (cleaner.counts.empty, cleaner.counts.duplicates) == (1, 1)


@given(st.lists(st.sampled_from(["a.", "b.", "c", "", "d. e", "ö."]), max_size=30), st.booleans())
def test_the_counts_add_up_and_no_story_comes_twice(stories: list[str], thorough: bool) -> None:
    cleaner = Cleaner(thorough)
    kept = list(cleaner(stories))
    counts = cleaner.counts
    assert counts.read == len(stories)
    assert counts.kept == len(kept) == len(set(kept))
    assert counts.read == counts.kept + counts.empty + counts.truncated + counts.duplicates + counts.in_validation
    assert list(Cleaner(thorough)(kept)) == kept
