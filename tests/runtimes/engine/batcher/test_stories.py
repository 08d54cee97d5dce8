"""Stories that come and go: each is the one that it would be alone, and none waits long for the prompt of another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.engine.batcher import COPIES, Batcher
from runtimes.engine.generator import Generator
from runtimes.engine.story import Story
from runtimes.types import GenerationConfig, LogitsRules, SamplingParams
from tests.runtimes.engine.batcher.reads import CONFIGS, LONG, PROMPTS, Reads, alone, finish, greedy


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whoever_comes_and_goes_each_story_is_the_one_it_would_be_alone(
    generator: Generator, data: st.DataObject
) -> None:
    """Stories with equal, shared and long prompts are added, dropped and stepped in any order and any chunks."""
    slots, chunk = data.draw(st.integers(1, 4)), data.draw(st.sampled_from([1, 3, 8, 20, None]))
    batcher = Batcher(generator, slots, chunk)
    batcher._prompts._most = data.draw(st.integers(1, 4))
    keys: dict[Story, tuple[str, int, int]] = {}
    texts: dict[Story, str] = {}
    dropped = set[Story]()

    def add() -> None:
        key = (data.draw(st.sampled_from(PROMPTS)), data.draw(st.integers(0, 4)), data.draw(st.integers(0, 2)))
        story = generator.story(key[0], CONFIGS[key[1]], SamplingParams(1.0, seed=key[2]))
        keys[story], texts[story] = key, ""
        batcher.add(story)

    def step() -> None:
        before = {story: len(story.ids) for story in keys}
        for story, piece in batcher.step():
            assert story not in dropped
            texts[story] += piece
        assert batcher.running == sum(story.finish_reason is None for story in keys if story not in dropped)
        assert all(len(story.ids) == before[story] for story in dropped)

    def drop() -> None:
        if keys:
            story = data.draw(st.sampled_from(sorted(keys, key=list(keys).index)))
            batcher.drop(story)
            if story.finish_reason is None:
                dropped.add(story)

    def preempt() -> None:
        """Preempts a story; it goes on later, after others that wait."""
        if written := [story for story in keys if story.ids and story.finish_reason is None and story not in dropped]:
            story = data.draw(st.sampled_from(written))
            batcher.preempt(story)
            batcher.add(story)

    actions = [add, add, step, step, step, step, drop, preempt]
    for action in [add, *data.draw(st.lists(st.sampled_from(actions), max_size=40))]:
        action()
    while batcher.running:
        step()
    assert batcher.free == slots
    for story, key in keys.items():
        expected = alone(generator, *key)
        if story in dropped:
            assert story.ids == expected.ids[: len(story.ids)]
        else:
            found = story.completion()
            assert (found.ids, found.completion_text) == (expected.ids, expected.completion_text)
            assert texts[story] == expected.completion_text
            assert (found.stats.stop, found.stats.prompt_tokens) == (expected.stats.stop, expected.stats.prompt_tokens)
            np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=1e-4)


@pytest.mark.parametrize("config", [2, 4], ids=["stop", "slide"])
def test_a_story_that_is_preempted_after_every_id_is_the_same(generator: Generator, config: int) -> None:
    batcher = Batcher(generator, 1)
    story = generator.story(LONG, CONFIGS[config], SamplingParams(1.0, seed=1))
    while story.finish_reason is None:
        batcher.add(story)
        before = len(story.ids)
        while len(story.ids) == before and story.finish_reason is None:
            batcher.step()
        batcher.preempt(story)
        assert batcher.running == 0
    assert story.ids == alone(generator, LONG, config, 1).ids


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_a_new_long_prompt_stalls_the_others_by_one_chunk_at_most(
    generator: Generator, int8: Generator, reads: Reads, variant: str
) -> None:
    chosen = int8 if variant == "int8" else generator
    batcher = Batcher(chosen, 4, prefill_chunk=5)
    first, second = (greedy(chosen, prompt) for prompt in ("Lily", LONG))
    batcher.add(first)
    batcher.step()
    written = len(first.ids)
    batcher.add(second)
    batcher.add(greedy(chosen, "Tom had a red ball"))
    batcher.add(greedy(chosen, "Zoë"))
    size = len(second.prompt_ids)
    assert size > 25
    for number in range(12):
        batcher.step()
        assert len(first.ids) == written + 1 + number
    assert max(reads.between_steps) == 5
    assert batcher.free == 0
    assert len(second.ids) == 12 - -(-size // 5) + 2  # with its last chunk it gets its first id, and takes a step


def test_copies_of_a_long_prompt_do_not_stall_the_others_either(generator: Generator, reads: Reads) -> None:
    batcher = Batcher(generator, 8, prefill_chunk=2)
    stories = [greedy(generator, LONG) for _ in range(8)]
    batcher.add(stories[0])
    while not stories[0].ids:
        batcher.step()
    reads.rows.clear()
    for story in stories[1:]:
        batcher.add(story)
    batcher.step()
    copied = -(-len(stories[0].prompt_ids) // COPIES)
    assert reads.rows == [1 + -(-2 // copied)]


def test_a_window_that_slides_is_read_in_chunks_too(generator: Generator, reads: Reads) -> None:
    batcher = Batcher(generator, 2, prefill_chunk=6)
    sliding = greedy(generator, LONG, GenerationConfig(60, on_full="slide", ignore_eos=True))
    other = greedy(generator, "Lily", GenerationConfig(55, ignore_eos=True))
    batcher.add(sliding)
    batcher.add(other)
    finish(batcher)
    assert (len(sliding.ids), len(other.ids)) == (60, 55)
    assert max(reads.between_steps[1:]) == 6  # before the first step no story runs that could wait
    assert sum(reads.prompts) > 60, "nothing slid"


def test_several_short_prompts_are_read_between_two_steps(generator: Generator, reads: Reads) -> None:
    batcher = Batcher(generator, 4, prefill_chunk=100)
    for prompt in ("Lily", "Tom", "Zoë"):
        batcher.add(greedy(generator, prompt))
    assert len(batcher.step()) == 6
    assert reads.rows == [3]


def test_rules_of_one_story_are_not_those_of_another(generator: Generator) -> None:
    batcher = Batcher(generator, 2)
    plain = greedy(generator, "Lily", GenerationConfig(9))
    ruled = generator.story("Lily", GenerationConfig(9), SamplingParams(0.0, rules=LogitsRules(no_repeat_ngram=1)))
    for story in (plain, ruled):
        batcher.add(story)
    finish(batcher)
    assert len(set(ruled.ids)) == len(ruled.ids)
    assert plain.ids == generator.generate("Lily", max_tokens=9, temperature=0.0).ids
