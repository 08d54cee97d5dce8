"""Prompts that are kept for later stories, and those of stories that are dropped."""

from __future__ import annotations

import pytest

from runtimes import load
from runtimes.engine.batcher import Batcher
from runtimes.engine.generator import Generator
from runtimes.engine.prompt_cache import PromptCache
from runtimes.types import GenerationConfig
from tests.runtimes.engine.batcher.reads import GREEDY, LONG, Reads, finish, greedy


def test_a_prompt_that_begins_like_another_is_read_from_where_they_differ(generator: Generator, reads: Reads) -> None:
    """The other is a running story, its text included, or a recent prompt."""
    batcher = Batcher(generator, 4, prefill_chunk=None)
    running = greedy(generator, "One day")
    batcher.add(running)
    for _ in range(6):
        batcher.step()
    reads.prompts.clear()
    longer = greedy(generator, [*running.prompt_ids, *running.ids[:4], 65, 66])
    batcher.add(longer)
    batcher.step()
    assert reads.prompts == [2]
    assert longer.reused_prompt_tokens == len(longer.prompt_ids) - 2
    batcher.drop(running)
    batcher.drop(longer)
    reads.prompts.clear()
    recent = greedy(generator, [*longer.prompt_ids[:-1], 70])
    batcher.add(recent)
    batcher.step()
    assert reads.prompts == [1]
    assert batcher.reused_tokens == longer.reused_prompt_tokens + len(recent.prompt_ids) - 1
    assert batcher.prompt_tokens == sum(len(one.prompt_ids) for one in (running, longer, recent))


def test_int8_reuses_a_whole_equal_prompt_only(int8: Generator, reads: Reads) -> None:
    batcher = Batcher(int8, 1, prefill_chunk=4)
    stories = [greedy(int8, prompt, GenerationConfig(5)) for prompt in (LONG, LONG + " The", "Lily", LONG)]
    for story in stories:
        batcher.add(story)
        finish(batcher)
    sizes = [len(story.prompt_ids) for story in stories]
    assert sum(reads.prompts) == sum(sizes[:3])
    assert [story.reused_prompt_tokens for story in stories] == [0, 0, 0, sizes[3]]
    assert stories[3].ids == stories[0].ids


def test_the_prompts_that_were_used_last_are_kept(int8: Generator, reads: Reads) -> None:
    batcher = Batcher(int8, 1)
    prompts = ["Lily", "Tom", "Zoë", "Max"]  # as many as are kept
    for prompt in [*prompts, "Lily", "Ben", "Lily", "Max", "Zoë"]:
        batcher.add(greedy(int8, prompt, GenerationConfig(2)))
        finish(batcher)
    sizes = [len(int8.encode(prompt)) for prompt in [*prompts, "Ben"]]
    assert reads.prompts == sizes  # Tom gave way to Ben
    batcher.add(greedy(int8, "Tom", GenerationConfig(2)))
    finish(batcher)
    assert len(reads.prompts) == 6


@pytest.mark.parametrize(("most", "kept"), [(16 * 2**20, 4), (2.5 * 2**20, 2), (1, 1)])
def test_kept_prompts_have_bounded_memory(monkeypatch: pytest.MonkeyPatch, most: float, kept: int) -> None:
    """A row of nano has 1 MiB."""
    monkeypatch.setattr("runtimes.engine.prompt_cache.MOST_BYTES", most)
    cache = PromptCache(load().pool(2), readings_agree=True)
    assert len({id(cache.take([number])) for number in range(9)}) == kept


def test_a_story_that_is_dropped_while_it_is_read_is_read_no_further(generator: Generator, reads: Reads) -> None:
    batcher = Batcher(generator, 2, prefill_chunk=4)
    other, dropped, queued = (greedy(generator, prompt) for prompt in ("Lily", LONG, "Tom"))
    batcher.add(other)
    batcher.step()
    batcher.add(dropped)
    batcher.add(queued)
    batcher.step()
    batcher.drop(dropped)
    batcher.drop(queued)
    read = len(reads.prompts)
    for _ in range(5):
        batcher.step()
    assert len(reads.prompts) == read
    assert (dropped.ids, queued.ids, batcher.running, batcher.free) == ([], [], 1, 1)
    batcher.drop(queued)
    batcher.add(queued)
    batcher.step()
    assert queued.ids


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_part_of_a_prompt_that_was_dropped_is_not_taken_for_a_whole_one(
    generator: Generator, int8: Generator, variant: str
) -> None:
    chosen = int8 if variant == "int8" else generator
    batcher, begin = Batcher(chosen, 1, prefill_chunk=4), chosen.encode(LONG)[:4]
    for prompt in ("Lily", "Tom", "Zoë", "Max"):  # as many as are kept
        batcher.add(greedy(chosen, prompt, GenerationConfig(2)))
        finish(batcher)
    dropped, story = greedy(chosen, LONG), greedy(chosen, begin, GenerationConfig(9))
    batcher.add(dropped)
    batcher.step()
    batcher.drop(dropped)
    batcher.add(story)
    finish(batcher)
    alone = chosen.stream(chosen.detokenize(begin), GenerationConfig(9), GREEDY)
    assert "".join(alone) == story.completion().completion_text


def test_a_story_that_is_dropped_while_its_context_slides_is_gone(generator: Generator) -> None:
    batcher = Batcher(generator, 2)
    sliding = greedy(generator, LONG, GenerationConfig(on_full="slide", ignore_eos=True))
    batcher.add(sliding)
    while sliding.window is None:
        batcher.step()
    written = len(sliding.ids)
    assert batcher.running == 1
    batcher.drop(sliding)
    assert (batcher.running, batcher.step(), len(sliding.ids)) == (0, [], written)
