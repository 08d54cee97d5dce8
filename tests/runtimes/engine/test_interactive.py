"""A story told together, through the command: words are added, turns are tried again and taken back."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtimes import load
from runtimes.engine.generator import GenerationConfig, Generator
from runtimes.engine.interactive import HELP, Telling, tell
from runtimes.engine.sampler import SamplingParams
from tests import bundles
from tests.bundles import Slmx
from tests.conftest import run_slmx

GREEDY = SamplingParams(temperature=0.0)


@pytest.fixture(scope="module")
def bundle(tiny_checkpoint: Path) -> Path:
    return bundles.tiny_bundle(tiny_checkpoint)


@pytest.fixture(scope="module")
def generator(bundle: Path) -> Generator:
    return load(bundle, "fp32")


def told(
    generator: Generator, prompt: str, lines: list[str], sampling: SamplingParams = GREEDY
) -> tuple[str, str, str]:
    """The story, what was shown of it, and what was said beside it."""
    shown: list[str] = []
    said: list[str] = []
    text = tell(generator, prompt, GenerationConfig(8), sampling, lines, shown.append, said.append)
    return text, "".join(shown), "\n".join(said)


def test_each_turn_goes_on_from_the_whole_story(generator: Generator) -> None:
    text, shown, _ = told(generator, "Once", ["\n", "The dog\n"])
    assert shown == text
    story = "Once"
    for added in ("", "", " The dog"):
        story += added
        story += "".join(generator.stream(story, GenerationConfig(8, on_full="slide"), GREEDY))
    assert text == story


def test_a_turn_is_tried_again_with_another_seed_and_taken_back(generator: Generator) -> None:
    telling = Telling(generator, GenerationConfig(12), SamplingParams(1.5, 0, 1.0, seed=1))
    telling.go_on("Once", lambda piece: None)
    first = telling.text
    telling.go_on("", lambda piece: None)
    second = telling.text
    telling.retry(lambda piece: None)
    assert telling.text.startswith(first)
    assert telling.text != second
    assert telling.undo()
    assert telling.text == first
    assert telling.undo()
    assert not telling.undo()
    telling.retry(lambda piece: None)
    assert telling.text == ""


def test_the_same_seed_and_turns_tell_the_same_story(generator: Generator) -> None:
    turns = ["", "/retry", "Tom", "/undo", ""]
    sampling = SamplingParams(1.0, seed=4)
    assert told(generator, "Lily", turns, sampling) == told(generator, "Lily", turns, sampling)


def test_commands_are_answered(generator: Generator) -> None:
    text, shown, said = told(generator, "", ["/undo", "/retry", "/dance", "/quit", "never read"])
    assert (text, shown) == ("", "")
    for line in ("nothing to take back", "nothing to try again", HELP):
        assert line in said


def test_a_story_grows_beyond_the_context(generator: Generator) -> None:
    text, _, _ = told(generator, "One day", [""] * 20)
    assert len(generator.tokenizer.encode(text)) > generator.bundle.config.block_size


def test_the_command_keeps_the_story_on_stdout_and_saves_it(bundle: Path, tmp_path: Path) -> None:
    ran = run_slmx(
        *("generate", "Once", "--interactive", "--bundle", bundle, "--max-tokens", "6", "--seed", "1"),
        *("--save", "story.txt"),
        cwd=tmp_path,
        input="\nThe dog\n/quit\n",
    )
    assert ran.returncode == 0
    assert (tmp_path / "story.txt").read_text("utf-8") == ran.stdout
    assert ran.stdout.startswith("Once")
    assert " The dog" in ran.stdout
    assert HELP in ran.stderr


def test_what_does_not_go_together_is_one_line(bundle: Path, slmx: Slmx) -> None:
    for flags in (("--json",), ("-n", "2")):
        assert "--interactive reads lines" in slmx.refuses("generate", "--interactive", "--bundle", bundle, *flags)
    assert slmx.refuses("generate", "--logprobs", "--bundle", bundle) == "--logprobs shows in JSON only: add --json"
    line = slmx.refuses("generate", "--logprobs", "--json", "-n", "2", "--bundle", bundle)
    assert line == "a batch keeps no log-probabilities: write one story"
