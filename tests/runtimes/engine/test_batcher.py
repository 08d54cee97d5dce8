"""Stories that come and go: each is the one that it would be alone, and none waits long for the prompt of another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes import load
from runtimes.engine.batcher import COPIES, Batcher
from runtimes.engine.cache import FloatArray
from runtimes.engine.generator import Generator
from runtimes.engine.pool import Pool
from runtimes.engine.prompt_cache import PromptCache
from runtimes.engine.scoring import TextScore
from runtimes.engine.story import Story
from runtimes.types import Completion, GenerationConfig, LogitsRules, SamplingParams
from slm.errors import SlmxError, UsageError
from tests import bundles

GREEDY = SamplingParams(temperature=0.0)
ENDLESS = GenerationConfig(ignore_eos=True)
LONG = "One day, Tom went to the park with a big ball. Lily saw a little dog in the garden."
PROMPTS = ["", "Lily", "Once upon a time", "Once upon a time, there was", LONG, LONG + " The dog was very happy."]
CONFIGS = [
    GenerationConfig(1),
    GenerationConfig(12, logprobs=True),
    GenerationConfig(),
    GenerationConfig(stop="the"),
    GenerationConfig(90, on_full="slide"),
]


@pytest.fixture(scope="module")
def generator(tiny_checkpoint: Path) -> Generator:
    return load(bundles.tiny_bundle(tiny_checkpoint), "fp32")


@pytest.fixture(scope="module")
def int8(tiny_checkpoint: Path) -> Generator:
    return load(bundles.tiny_bundle(tiny_checkpoint), "int8")


class Reads:
    """How many positions each run of a prompt read, and each step of the pool."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prompts: list[int] = []
        self.between_steps: list[int] = []
        self.rows: list[int] = []
        self._since = 0
        prefill, score, step = Pool.prefill, Pool.score, Pool.step

        def counted(run: Callable[[Pool, int, Sequence[int]], FloatArray]) -> Callable[..., FloatArray]:
            def one(pool: Pool, row: int, ids: Sequence[int]) -> FloatArray:
                self.prompts.append(len(ids))
                self._since += len(ids)
                return run(pool, row, ids)

            return one

        def stepped(pool: Pool, tokens: Sequence[int]) -> FloatArray:
            self.between_steps.append(self._since)
            self.rows.append(len(tokens))
            self._since = 0
            return step(pool, tokens)

        monkeypatch.setattr(Pool, "prefill", counted(prefill))
        monkeypatch.setattr(Pool, "score", counted(score))
        monkeypatch.setattr(Pool, "step", stepped)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


def finish(batcher: Batcher) -> dict[Story, str]:
    """Runs all that is in it, and returns the text of each story."""
    texts: dict[Story, str] = {}
    while batcher.running:
        for story, piece in batcher.step():
            texts[story] = texts.get(story, "") + piece
    return texts


def greedy(generator: Generator, prompt: str | Sequence[int], config: GenerationConfig = ENDLESS) -> Story:
    return generator.story(prompt, config, GREEDY)


@cache
def alone(generator: Generator, prompt: str, config: int, seed: int) -> Completion:
    stream = generator.stream(prompt, CONFIGS[config], SamplingParams(1.0, seed=seed), reuse=False)
    for _ in stream:
        pass
    return stream.completion


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whoever_comes_and_goes_each_story_is_the_one_it_would_be_alone(
    generator: Generator, data: st.DataObject
) -> None:
    """Stories with equal, shared and long prompts are added, dropped and stepped in any order, in parts of any size."""
    slots, part = data.draw(st.integers(1, 4)), data.draw(st.sampled_from([1, 3, 8, 20, None]))
    batcher = Batcher(generator, slots, part)
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

    def set_aside() -> None:
        """Sets a story aside; it goes on later, after others that wait."""
        if written := [story for story in keys if story.ids and story.finish_reason is None and story not in dropped]:
            story = data.draw(st.sampled_from(written))
            batcher.set_aside(story)
            batcher.add(story)

    actions = [add, add, step, step, step, step, drop, set_aside]
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
def test_a_story_that_is_set_aside_after_every_id_is_the_same(generator: Generator, config: int) -> None:
    batcher = Batcher(generator, 1)
    story = generator.story(LONG, CONFIGS[config], SamplingParams(1.0, seed=1))
    while story.finish_reason is None:
        batcher.add(story)
        before = len(story.ids)
        while len(story.ids) == before and story.finish_reason is None:
            batcher.step()
        batcher.set_aside(story)
        assert batcher.running == 0
    assert story.ids == alone(generator, LONG, config, 1).ids


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_a_new_long_prompt_stalls_the_others_by_one_part_at_most(
    generator: Generator, int8: Generator, reads: Reads, variant: str
) -> None:
    chosen = int8 if variant == "int8" else generator
    batcher = Batcher(chosen, 4, prompt_part=5)
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
    assert len(second.ids) == 12 - -(-size // 5) + 2  # with its last part it gets its first id, and takes a step


def test_copies_of_a_long_prompt_do_not_stall_the_others_either(generator: Generator, reads: Reads) -> None:
    batcher = Batcher(generator, 8, prompt_part=2)
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


def test_a_window_that_slides_is_read_in_parts_too(generator: Generator, reads: Reads) -> None:
    batcher = Batcher(generator, 2, prompt_part=6)
    sliding = greedy(generator, LONG, GenerationConfig(60, on_full="slide", ignore_eos=True))
    other = greedy(generator, "Lily", GenerationConfig(55, ignore_eos=True))
    batcher.add(sliding)
    batcher.add(other)
    finish(batcher)
    assert (len(sliding.ids), len(other.ids)) == (60, 55)
    assert max(reads.between_steps[1:]) == 6  # before the first step no story runs that could wait
    assert sum(reads.prompts) > 60, "nothing slid"


def test_several_short_prompts_are_read_between_two_steps(generator: Generator, reads: Reads) -> None:
    batcher = Batcher(generator, 4, prompt_part=100)
    for prompt in ("Lily", "Tom", "Zoë"):
        batcher.add(greedy(generator, prompt))
    assert len(batcher.step()) == 6
    assert reads.rows == [3]


def test_a_prompt_that_begins_like_another_is_read_from_where_they_differ(generator: Generator, reads: Reads) -> None:
    """The other is a running story, its text included, or a recent prompt."""
    batcher = Batcher(generator, 4, prompt_part=None)
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
    batcher = Batcher(int8, 1, prompt_part=4)
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
    cache = PromptCache(load().pool(2), parts_agree=True)
    assert len({id(cache.take([number])) for number in range(9)}) == kept


def test_a_story_that_is_dropped_while_it_is_read_is_read_no_further(generator: Generator, reads: Reads) -> None:
    batcher = Batcher(generator, 2, prompt_part=4)
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
    batcher, begin = Batcher(chosen, 1, prompt_part=4), chosen.encode(LONG)[:4]
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


@pytest.mark.parametrize("part", [None, 4])
def test_a_prompt_that_cannot_be_read_ends_its_story_and_is_not_kept(
    generator: Generator, monkeypatch: pytest.MonkeyPatch, part: int | None
) -> None:
    batcher = Batcher(generator, 4, part)
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
def test_a_text_is_scored_in_parts_while_stories_run(
    generator: Generator, int8: Generator, reads: Reads, variant: str
) -> None:
    chosen = int8 if variant == "int8" else generator
    batcher = Batcher(chosen, 3, prompt_part=7)
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
    batcher = Batcher(generator, 2, prompt_part=4)
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
    ("slots", "part", "line"),
    [
        (2, 0, "prompt part must be at least 1, not 0"),
        (2, 2.5, r"prompt part must be a whole number, not 2\.5"),
        (0, 128, "slots must be at least 1, not 0"),
    ],
)
def test_a_number_out_of_range_is_refused(generator: Generator, slots: int, part: int, line: str) -> None:
    with pytest.raises(UsageError, match=f"^{line}$"):
        Batcher(generator, slots, part)


def test_rules_of_one_story_are_not_those_of_another(generator: Generator) -> None:
    batcher = Batcher(generator, 2)
    plain = greedy(generator, "Lily", GenerationConfig(9))
    ruled = generator.story("Lily", GenerationConfig(9), SamplingParams(0.0, rules=LogitsRules(no_repeat_ngram=1)))
    for story in (plain, ruled):
        batcher.add(story)
    finish(batcher)
    assert len(set(ruled.ids)) == len(ruled.ids)
    assert plain.ids == generator.generate("Lily", max_tokens=9, temperature=0.0).ids
