"""The page of stories: what it holds, and what a rerun keeps."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.program import run
from benchmarks.studies import stories
from benchmarks.studies.stories import BEGIN, END, NO_NOTES, OPENINGS, kept_notes, quoted
from runtimes import load
from runtimes.types import Completion, GenerationStats
from tests import bundles

STATS = GenerationStats(3, 4, "stop", "end of text", None, 1, 0.0, 0.0)
Page = Callable[..., int]


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    """Runs the command with the first two openings, and returns its exit code."""
    monkeypatch.setattr("benchmarks.studies.stories.OPENINGS", OPENINGS[:2])

    def command(*args: str | Path) -> int:
        monkeypatch.setattr("sys.argv", [stories.__file__, *map(str, args)])
        with pytest.raises(SystemExit) as exit_:
            run(stories.main)
        return int(exit_.value.code or 0)

    return command


def test_there_are_twenty_different_openings_in_plain_letters() -> None:
    assert len(set(OPENINGS)) == 20
    assert all(opening.isascii() and opening.rstrip('"')[-1] in ".!?" for opening in OPENINGS)


def test_a_file_of_bytes_is_not_replaced(tmp_path: Path, page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "picture.png"
    out.write_bytes(b"\x89PNG\xff\xfe")
    assert page("--out", out, "nano") == 1
    assert "has no place for notes" in capsys.readouterr().err
    assert out.read_bytes() == b"\x89PNG\xff\xfe"


def test_a_story_is_quoted_as_text_and_says_if_it_did_not_end() -> None:
    story = Completion("Hi.", " *Go* <b>!\n\n# He ran.", [1], STATS, [])
    assert quoted(story) == "> \\*Go\\* &lt;b&gt;!\n>\n> \\# He ran."
    cut = replace(story, stats=replace(STATS, finish_reason="length", stop="context full"))
    assert quoted(cut).splitlines()[-1] == "> *(not ended: context full)*"
    assert quoted(replace(story, completion_text=" ")) == "> *(nothing)*"


def test_a_page_has_the_story_of_each_model_as_slmx_generate_writes_it(
    tiny_checkpoint: Path, tmp_path: Path, page: Page
) -> None:
    bundle, out = bundles.tiny_bundle(tiny_checkpoint), tmp_path / "stories.md"
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    assert page("--out", out, bundle, other) == 0
    text = out.read_text("utf-8")
    assert f"{BEGIN}\n{NO_NOTES}{END}" in text
    assert f"python -m benchmarks.studies.stories --out {out} {bundle} {other}" in text
    with load(bundle) as generator:
        for number, opening in enumerate(OPENINGS[:2], 1):
            story = quoted(generator.generate(opening, seed=number))
            for name in (bundle.name, "other"):
                assert f"**{opening}**\n\n### " in text
                assert f"### {name}, {number}\n\n{story}\n" in text


def test_a_rerun_keeps_the_notes_and_writes_the_same_page(tiny_checkpoint: Path, tmp_path: Path, page: Page) -> None:
    bundle, out = bundles.tiny_bundle(tiny_checkpoint), tmp_path / "stories.md"
    assert page("--out", out, bundle) == 0
    notes = 'The tiny model writes \\1 "words" only.\n\nIt has no thread.\n'
    noted = out.read_text("utf-8").replace(NO_NOTES, notes)
    out.write_text(noted, "utf-8")
    assert page("--out", out, bundle) == 0
    assert out.read_text("utf-8") == noted
    assert kept_notes(out) == notes


@pytest.mark.slow
def test_a_checkpoint_is_exported_for_the_page_only(tiny_checkpoint: Path, tmp_path: Path, page: Page) -> None:
    out = tmp_path / "stories.md"
    with bundles.brief_checks():
        assert page("--out", out, tiny_checkpoint) == 0
    int8 = f"### {tiny_checkpoint.name}, 1"
    assert int8 in out.read_text("utf-8")
    assert list(tmp_path.iterdir()) == [out]


def test_what_is_no_page_and_no_model_is_refused_in_one_line(
    tiny_checkpoint: Path, tmp_path: Path, page: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, mine = bundles.tiny_bundle(tiny_checkpoint), tmp_path / "mine.md"
    mine.write_text("my own page\n", "utf-8")
    refused = {
        ("--out", mine, bundle): (1, "has no place for notes"),
        ("--out", tmp_path / "no" / "page.md", bundle): (2, "its folder does not exist"),
        ("--out", tmp_path / "page.md", bundle, bundle): (2, "two models have one name"),
        ("--out", tmp_path / "page.md", tmp_path / "missing"): (1, "missing: no bundle"),
    }
    for args, (code, message) in refused.items():
        assert page(*args) == code
        printed = capsys.readouterr().err
        assert printed.startswith("benchmarks.studies.stories: ")
        assert message in printed
        assert len(printed.splitlines()) == 1
    assert mine.read_text("utf-8") == "my own page\n"
    assert not (tmp_path / "page.md").exists()
