"""The version of the rules that make stories of a text. A data set of earlier rules is not taken for one of today's."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from slm.console.errors import NeedsForceError
from slm.data.cleaning import RULES, Cleaner
from slm.data.dataset import Dataset
from slm.data.prepare import PrepareSettings, is_held_out, prepare
from slm.data.sources import find_sources, read_stories
from slm.storage.hashing import sha256_of
from tests.runs import QUIET, make_older

# Each rule has a text here.
TEXT = """\ufeffOnce there was a fox.  It ran.\r\n \r\nHe ate a muffin

A story that breaks off. And then

It ran to the woods. The end

It ran to the woods.
THE END!

CafÃ© is open, said Zoë.

Once there was a fox.  It ran.

...

“Hello!” he said. “Bye.”

A title without a mark

他走了。

🙂 He smiled 🙂
"""
STORIES = {2: "97b9178c5b4831069474822d8e8e4f6a7a7a128ea368ac868cd6f0dae4ad60e2"}


def test_a_change_of_the_rules_has_a_new_version(tmp_path: Path) -> None:
    """If this fails because the rules give other stories, raise RULES and pin the new digest here."""
    path = tmp_path / "one of éach.txt"
    path.write_bytes(TEXT.encode())
    marked = tmp_path / "marked.txt"
    marked.write_bytes(TEXT.replace("\n\n", "\n<|endoftext|>\n").encode())
    kept = []
    for thorough in (True, False):
        for file in (path, marked):
            stories = Cleaner(thorough)(read_stories(find_sources([file]), "text"))
            kept.append([(story, is_held_out(story)) for story in stories])
    assert {RULES: hashlib.sha256(json.dumps(kept).encode()).hexdigest()} == STORIES


@pytest.mark.slow
def test_a_data_set_of_earlier_rules_is_not_up_to_date(plan: PrepareSettings) -> None:
    prepare(plan, QUIET)
    make_older(plan.out)
    before = sha256_of(plan.out / "dataset.json")
    with pytest.raises(NeedsForceError) as caught:
        prepare(plan, QUIET)
    assert str(caught.value) == (
        f"{plan.out}: holds a data set made with the rules of cleaning of another slmx; choose another --out, "
        "or --force to replace it"
    )
    assert sha256_of(plan.out / "dataset.json") == before
    assert Dataset.open(plan.out).record["settings"].get("rules") is None
    assert prepare(replace(plan, force=True), QUIET).record["settings"]["rules"] == RULES
    assert prepare(plan, QUIET)
