"""The vectors that the web app's tests read are what the Python code gives today."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runtimes.bundle.location import shipped_names
from runtimes.bundle.store import Bundle
from tests.runtimes.web import vectors

WRITE_THEM = f"the vectors are not up to date: run {vectors.COMMAND}"
MOST_BYTES = 300_000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sampling.json", "tokens.json"])
def test_python_gives_what_the_vectors_say(name: str) -> None:
    made = vectors.text_of(vectors.files()[name])
    same = (vectors.FOLDER / name).read_text("utf-8") == made  # outside of the assert, which would print both
    assert same, WRITE_THEM


@pytest.mark.parametrize("name", vectors.STORIES)
def test_the_stories_are_of_the_shipped_bundles(name: str) -> None:
    story = json.loads((vectors.FOLDER / "stories.json").read_text("utf-8"))[name]
    assert story["manifest"] == Bundle.open(shipped_names()[name]).manifest_sha256, WRITE_THEM
    assert len(story["ids"]) > 10


def test_the_vectors_cover_every_rule_and_error() -> None:
    cases = json.loads((vectors.FOLDER / "sampling.json").read_text("utf-8"))["cases"]
    for name, off in vectors.OFF.items():
        assert {case["settings"][name] != off for case in cases} == {True, False}
    assert {case["ids"] is None for case in cases} == {True, False}
    assert all((case["ids"] is None) == (case["kind"] == "nan") for case in cases)
    assert {case["seed"] for case in cases} == set(vectors.SEEDS)


def test_the_vectors_are_small() -> None:
    assert sum(path.stat().st_size for path in Path(vectors.FOLDER).iterdir()) < MOST_BYTES
