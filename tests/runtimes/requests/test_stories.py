"""The stories of a request with a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimes.bundle.store import Bundle
from runtimes.engine.generator import Generator
from runtimes.requests.completion import read_completion
from runtimes.requests.errors import RequestError
from runtimes.requests.fields import Bounds
from runtimes.requests.stories import Begun, begin_stories
from slm.console.errors import SlmxError
from tests import bundles


@pytest.fixture(scope="module")
def generator(tiny_checkpoint: Path) -> Iterator[Generator]:
    with Generator(Bundle.open(bundles.tiny_bundle(tiny_checkpoint)), "fp32") as opened:
        yield opened


def begin(generator: Generator, bounds: Bounds | None = None, **fields: object) -> Begun:
    bounds = bounds or Bounds()
    request = read_completion(fields, bounds)
    return begin_stories(request, request.prompts, generator, bounds)


def test_story_j_of_prompt_i_has_its_own_seed(generator: Generator) -> None:
    begun = begin(generator, prompt=["Once", "One day", ""], n=2, seed=10)
    assert [story.seed for story in begun.stories] == [10, 11, 12, 13, 14, 15]
    assert [story.prompt for story in begun.stories] == ["Once", "Once", "One day", "One day", "", ""]
    assert begun.seed == 10
    assert begun.prompt_ids == [generator.encode(prompt) for prompt in ("Once", "One day", "")]


def test_a_seed_is_drawn_if_none_is_given(generator: Generator) -> None:
    seeds = {begin(generator, prompt="Once").seed for _ in range(3)}
    assert len(seeds) == 3
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_a_prompt_can_be_bounded(generator: Generator) -> None:
    ids = generator.tokenize("Once upon a time")
    assert begin(generator, Bounds(prompt_tokens=len(ids) + 1), prompt=ids)
    with pytest.raises(RequestError) as error:
        begin(generator, Bounds(prompt_tokens=len(ids)), prompt=["Once", "Once upon a time"])
    assert (error.value.param, error.value.code) == ("prompt[1]", "context_length_exceeded")
    assert str(error.value) == (
        f"prompt[1]: the prompt is {len(ids) + 1} tokens long with its start token, the most is {len(ids)}; shorten it"
    )


def test_a_prompt_longer_than_the_context_is_refused_or_slides(generator: Generator) -> None:
    with pytest.raises(RequestError) as error:
        begin(generator, prompt="fox " * 60)
    assert str(error.value).endswith('the context holds 64 tokens; shorten it, or set on_full to "slide"')
    begun = begin(generator, prompt="fox " * 60, on_full="slide")
    assert begun.prompt_ids == [generator.encode("fox " * 60, "slide")]


def test_another_error_of_a_story_keeps_its_whole_line(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "the model is closed; load it again; or take another"

    def closed(*_: object) -> None:
        raise SlmxError(line)

    monkeypatch.setattr(generator, "story", closed)
    with pytest.raises(SlmxError) as error:
        begin(generator, prompt="Once")
    assert str(error.value) == line
