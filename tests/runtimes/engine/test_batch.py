"""Stories in a batch are those that their prompts and seeds give alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from runtimes import load
from runtimes.engine.batch import write_batch
from runtimes.engine.cache import FloatArray
from runtimes.engine.generator import GenerationConfig, Generator
from runtimes.engine.penalties import LogitsRules
from runtimes.engine.sampler import SamplingParams
from runtimes.engine.session import Batch
from slm.errors import SlmxError
from tests import bundles

PROMPTS = ["Once upon a time", "Lily", "", "One day, Tom went to the park with a big ball"]


@pytest.fixture(scope="module")
def generator(tiny_checkpoint: Path) -> Generator:
    return load(bundles.tiny_bundle(tiny_checkpoint), "fp32")


@pytest.mark.parametrize("prompts", [PROMPTS, ["Once upon a time"] * 8, ["Lily"]])
@pytest.mark.parametrize(
    "limits",
    [GenerationConfig(), GenerationConfig(20), GenerationConfig(stop=(".",)), GenerationConfig(stop=("dog", " the"))],
)
def test_each_story_is_the_one_it_would_be_alone(
    generator: Generator, prompts: list[str], limits: GenerationConfig
) -> None:
    together = write_batch(generator, prompts, limits, SamplingParams(1.0, rules=LogitsRules(1.1), seed=5))
    for number, (prompt, story) in enumerate(zip(prompts, together, strict=True)):
        stream = generator.stream(prompt, limits, SamplingParams(1.0, rules=LogitsRules(1.1), seed=5 + number))
        assert story.text == prompt + "".join(stream)
        assert (story.ids, story.summary.stop, story.summary.seed) == (stream.ids, stream.stop, 5 + number)
        assert story.summary.prompt_tokens == stream.summary.prompt_tokens


def test_rows_of_different_lengths_and_rows_that_leave(generator: Generator) -> None:
    session = generator.session
    rng = np.random.default_rng(0)
    starts = [rng.integers(0, 300, size).tolist() for size in (3, 11, 7)]
    steps = rng.integers(0, 300, (3, 9)).tolist()
    forks = []
    for ids in starts:
        session.rewind(0)
        session.prefill(ids)
        forks.append(session.fork())
    batch = Batch(forks)
    rows = [0, 1, 2]
    for step in range(9):
        if step == 4:
            batch.keep([0, 2])
            rows = [0, 2]
        logits = batch.step([steps[row][step] for row in rows])
        for place, row in enumerate(rows):
            np.testing.assert_allclose(logits[place], forks[row].step(steps[row][step]), atol=1e-5)
    assert batch.lengths == [12, 16]


def test_int8_in_a_batch_is_repeatable_and_close(tiny_checkpoint: Path) -> None:
    generator = load(bundles.tiny_bundle(tiny_checkpoint), "int8")
    one, two = (write_batch(generator, PROMPTS, GenerationConfig(20), SamplingParams(seed=3)) for _ in range(2))
    assert [story.text for story in one] == [story.text for story in two]


def test_without_a_seed_it_says_which_it_took(generator: Generator) -> None:
    stories = write_batch(generator, ["Lily"] * 3, GenerationConfig(10))
    assert [story.summary.seed - stories[0].summary.seed for story in stories] == [0, 1, 2]
    for story in stories:
        assert generator.generate("Lily", max_tokens=10, seed=story.summary.seed).text == story.text


def test_what_might_have_become_a_stop_string_is_kept_at_the_end(generator: Generator) -> None:
    (whole,) = write_batch(generator, ["Lily"], GenerationConfig(10), SamplingParams(0.0))
    (held,) = write_batch(
        generator, ["Lily"], GenerationConfig(10, stop=(whole.text[-1] + "never",)), SamplingParams(0.0)
    )
    assert held.text == whole.text


def test_a_batch_takes_more_threads_where_its_rows_are_worth_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtimes.engine.session.usable_cores", lambda: 2)
    nano = load()
    assert nano.session_for(1) is nano.session_for(2) is nano.session
    assert (nano.session.threads, nano.session_for(8).threads) == (1, 2)
    assert nano.session_for(8) is nano.session_for(8)
    told = load(threads=1)
    assert told.session_for(8) is told.session


def test_ctrl_c_keeps_what_was_written(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write_batch(generator, PROMPTS, GenerationConfig(12), SamplingParams(0.0))
    step, steps = Batch.step, iter(range(5))

    def interrupted(batch: Batch, tokens: Sequence[int]) -> FloatArray:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return step(batch, tokens)

    monkeypatch.setattr(Batch, "step", interrupted)
    for story, full in zip(
        write_batch(generator, PROMPTS, GenerationConfig(12), SamplingParams(0.0)), whole, strict=True
    ):
        assert story.summary.stop == "interrupted"
        assert story.ids == full.ids[:6]
        assert full.text.startswith(story.text)


def test_what_a_batch_cannot_do_is_one_line(generator: Generator, tiny_checkpoint: Path) -> None:
    with pytest.raises(SlmxError, match="a batch cannot slide its context"):
        write_batch(generator, ["a", "b"], GenerationConfig(on_full="slide"))
    with pytest.raises(SlmxError, match="no prompts"):
        write_batch(generator, [])
    portable = load(bundles.tiny_bundle_of_all(tiny_checkpoint), "portable")
    with pytest.raises(SlmxError, match="writes one story at a time; take fp32 or int8"):
        write_batch(portable, ["a", "b"])
