"""A name of the hub is safe as a path, and nothing else is such a name."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm.hub.name import HubName


@pytest.mark.parametrize(
    ("text", "repository", "revision"),
    [
        ("roneneldan/TinyStories-33M", "roneneldan/TinyStories-33M", None),
        ("a/b.c@main", "a/b.c", "main"),
        ("a/b@refs/pr/1", "a/b", "refs/pr/1"),
    ],
)
def test_a_name_has_a_repository_and_perhaps_a_revision(text: str, repository: str, revision: str | None) -> None:
    found = HubName.find(text)
    assert found == HubName(repository, revision)
    assert str(found) == text
    assert found is not None
    assert found.asked == (revision or "main")


@given(st.text("ab1/.@_-~\\:\0\n é", max_size=12))
def test_a_name_is_a_path_of_two_parts_on_every_system(text: str) -> None:
    found = HubName.find(text)
    if found is not None:
        for kind in (PurePosixPath, PureWindowsPath):
            path = kind(found.repository)
            assert len(path.parts) == 2
            assert not path.is_absolute()
            assert not any(part.startswith(".") for part in path.parts)
