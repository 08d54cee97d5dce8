"""Errors of one story, texts that are scored beside stories, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from runtimes.engine.arrays import FloatArray
from runtimes.engine.batcher import Batcher
from runtimes.engine.generator import Generator
from runtimes.engine.pool import Pool
from runtimes.engine.scoring import TextScore
from runtimes.types import GenerationConfig, SamplingParams
from slm.console.errors import SlmxError, UsageError
from tests.runtimes.engine.batcher.reads import CONFIGS, LONG, PROMPTS, Reads, alone, finish, greedy


def nan_for(monkeypatch: pytest.MonkeyPatch, chosen: Callable[[Pool], Iterator[int]]) -> None:
    """Makes the logits of some rows of each step no numbers."""
    step = Pool.step

    def damaged(pool: Pool, tokens: Sequence[int]) -> FloatArray:
        logits = step(pool, tokens)
        for row in chosen(pool):
            logits[row] = np.nan
        return logits

    monkeypatch.setattr(Pool, "step", damaged)


def test_an_error_ends_the_story_that_it_concerns_and_no_other(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher = Batcher(generator, 4)
    stories = [generator.story(prompt, CONFIGS[1], SamplingParams(1.0, seed=1)) for prompt in PROMPTS[:4]]
    unlucky = stories[1].prompt_ids

    def rows(pool: Pool) -> Iterator[int]:
        return (row for row, ids in enumerate(pool.ids) if len(ids) == 6 and ids[: len(unlucky)] == unlucky)

    nan_for(monkeypatch, rows)
    for story in stories:
        batcher.add(story)
    finish(batcher)
    assert str(stories[1].error).startswith("fp32: its logits are no numbers")
    assert stories[1].finish_reason == "interrupted"
    assert 0 < len(stories[1].ids) < 6
    for number in (0, 2, 3):
        assert stories[number].error is None
        assert stories[number].ids == alone(generator, PROMPTS[number], 1, 1).ids


@pytest.mark.parametrize("chunk", [None, 4])
def test_a_prompt_that_cannot_be_read_ends_its_story_and_is_not_kept(
    generator: Generator, monkeypatch: pytest.MonkeyPatch, chunk: int | None
) -> None:
    batcher = Batcher(generator, 4, chunk)
    prefill, fails = Pool.prefill, [True]

    def failing(pool: Pool, row: int, ids: Sequence[int]) -> FloatArray:
        if fails and len(pool.ids[row]) + len(ids) > 8:
            raise SlmxError("no memory")
        return prefill(pool, row, ids)

    monkeypatch.setattr(Pool, "prefill", failing)
    first, second, third = (greedy(generator, prompt, GenerationConfig(9)) for prompt in ("Lily", LONG, "Tom"))
    for story in (first, second, third):
        batcher.add(story)
    finish(batcher)
    assert [str(story.error) for story in (first, second, third)] == ["None", "no memory", "None"]
    assert (len(first.ids), len(second.ids), len(third.ids)) == (9, 0, 9)
    fails.clear()
    again = greedy(generator, LONG, GenerationConfig(9))
    batcher.add(again)
    finish(batcher)
    assert again.ids == generator.generate(LONG, max_tokens=9, temperature=0.0).ids


def test_logits_of_a_prompt_that_are_no_numbers_are_not_kept(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefill = Pool.prefill
    batcher = Batcher(generator, 2)
    with monkeypatch.context() as patched:
        patched.setattr(Pool, "prefill", lambda pool, row, ids: prefill(pool, row, ids) * np.nan)
        broken = greedy(generator, LONG)
        batcher.add(broken)
        finish(batcher)
    assert str(broken.error).startswith("fp32: its logits are no numbers")
    again = greedy(generator, LONG, GenerationConfig(9))
    batcher.add(again)
    finish(batcher)
    assert (again.error, again.reused_prompt_tokens) == (None, 0)


def test_a_step_that_fails_ends_all_that_run_and_later_stories_run(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher = Batcher(generator, 3)
    stories = [greedy(generator, prompt, GenerationConfig(20)) for prompt in ("Lily", "Tom", LONG)]
    for story in stories:
        batcher.add(story)
    batcher.step()
    with monkeypatch.context() as patched:
        patched.setattr(Pool, "step", lambda pool, tokens: [][0])
        assert {story for story, _ in batcher.step()} == set(stories)
    assert all(isinstance(story.error, IndexError) for story in stories)
    assert (batcher.running, batcher.free) == (0, 3)
    later = greedy(generator, "Lily", GenerationConfig(9))
    batcher.add(later)
    finish(batcher)
    assert later.ids == generator.generate("Lily", max_tokens=9, temperature=0.0).ids


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_a_text_is_scored_in_chunks_while_stories_run(
    generator: Generator, int8: Generator, reads: Reads, variant: str
) -> None:
    chosen = int8 if variant == "int8" else generator
    batcher = Batcher(chosen, 3, prefill_chunk=7)
    story = greedy(chosen, "Lily")
    batcher.add(story)
    batcher.step()
    ids = chosen.encode(LONG)
    score, dropped = TextScore(ids, top_logprobs=3), TextScore(ids)
    batcher.add(score)
    batcher.add(dropped)
    assert batcher.free == 0
    batcher.step()
    batcher.drop(dropped)
    while not score.done:
        batcher.step()
    assert max(reads.between_steps) == 7
    assert (batcher.running, batcher.free, dropped.logprobs) == (1, 2, [])
    session = chosen.take_session([])
    logits = session.fork(0).score(ids).astype(np.float64)
    chosen.return_session(session)
    expected = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    exact = 1e-4 if variant == "fp32" else 0.3
    np.testing.assert_allclose(score.logprobs, [row[i] for row, i in zip(expected, ids[1:], strict=False)], atol=exact)
    assert len(score.top_logprobs) == len(score.logprobs) == len(ids) - 1
    if variant == "fp32":
        for found, row in zip(score.top_logprobs, expected, strict=False):
            assert list(found) == np.argsort(-row)[:3].tolist()
            np.testing.assert_allclose([*found.values()], sorted(row, reverse=True)[:3], atol=1e-4)


def test_a_score_that_fails_has_its_error(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    score = Pool.score
    monkeypatch.setattr(Pool, "score", lambda pool, row, ids: score(pool, row, ids) * np.nan)
    batcher = Batcher(generator, 2)
    text, story = TextScore(generator.encode(LONG)), greedy(generator, "Lily", GenerationConfig(5))
    batcher.add(text)
    batcher.add(story)
    finish(batcher)
    assert text.done
    assert str(text.error).startswith("fp32: its logits are no numbers")
    assert (len(story.ids), story.error) == (5, None)
    later = greedy(generator, LONG, GenerationConfig(5))
    batcher.add(later)
    finish(batcher)
    assert later.reused_prompt_tokens == 1, "only the token that begins every story, which Lily has too"


def test_a_reset_batcher_is_as_new(generator: Generator) -> None:
    batcher = Batcher(generator, 2, prefill_chunk=4)
    for prompt in ("Lily", LONG, "Tom"):
        batcher.add(greedy(generator, prompt))
    batcher.step()
    batcher.reset()
    assert (batcher.running, batcher.free, batcher.step()) == (0, 2, [])
    story = greedy(generator, "Lily", GenerationConfig(9))
    batcher.add(story)
    finish(batcher)
    assert story.ids == generator.generate("Lily", max_tokens=9, temperature=0.0).ids


@pytest.mark.parametrize(
    ("slots", "chunk", "line"),
    [
        (2, 0, "prefill chunk must be at least 1, not 0"),
        (2, 2.5, r"prefill chunk must be a whole number, not 2\.5"),
        (0, 128, "slots must be at least 1, not 0"),
    ],
)
def test_a_number_out_of_range_is_refused(generator: Generator, slots: int, chunk: int, line: str) -> None:
    with pytest.raises(UsageError, match=f"^{line}$"):
        Batcher(generator, slots, chunk)
