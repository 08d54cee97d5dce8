"""Stories in a batch are the same as the stories that their prompts and seeds give alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from runtimes import load
from runtimes.engine.arrays import FloatArray
from runtimes.engine.batch import Batch
from runtimes.engine.generator import Generator
from runtimes.engine.pool import Pool
from runtimes.types import GenerationConfig, LogitsRules, SamplingParams
from slm.console.errors import SlmxError
from tests import bundles
from tests.runtimes.interrupts import interrupt_after

PROMPTS = ["Once upon a time", "Lily", "", "One day, Tom went to the park with a big ball"]
SAMPLED = SamplingParams(1.0, rules=LogitsRules(1.1), seed=5)


@pytest.fixture(scope="module")
def generator(tiny_checkpoint: Path) -> Generator:
    return load(bundles.tiny_bundle(tiny_checkpoint), "fp32")


@pytest.mark.parametrize("prompts", [PROMPTS, ["Once upon a time"] * 8, ["Lily"], ["Lily", "", "Lily", "Lily was"]])
@pytest.mark.parametrize(
    "config",
    [
        GenerationConfig(),
        GenerationConfig(20, logprobs=True),
        GenerationConfig(stop=(".",)),
        GenerationConfig(stop=("dog", " the")),
        GenerationConfig(90, on_full="slide"),
    ],
)
@pytest.mark.parametrize("slots", [64, 2])
def test_each_story_is_the_one_it_would_be_alone(
    generator: Generator, prompts: list[str], config: GenerationConfig, slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "slots", slots)
    together = generator.batch(prompts, config, SAMPLED)
    for number, (prompt, story) in enumerate(zip(prompts, together, strict=True)):
        sampling = SamplingParams(1.0, rules=LogitsRules(1.1), seed=5 + number)
        stream = generator.stream(prompt, config, sampling, reuse=False)
        assert story.full_text == prompt + "".join(stream)
        ours, alone = story.stats, stream.stats
        assert (story.ids, ours.finish_reason, ours.stop, ours.stop_string, ours.seed) == (
            stream.ids,
            alone.finish_reason,
            alone.stop,
            alone.stop_string,
            5 + number,
        )
        assert story.stats.prompt_tokens == stream.stats.prompt_tokens
        assert story.logprobs == pytest.approx(stream.logprobs, abs=1e-4)


def test_more_stories_than_slots_wait_and_no_more_rows_are_stepped(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "slots", 3)
    step, rows = Pool.step, list[int]()

    def counted(pool: Pool, tokens: Sequence[int]) -> FloatArray:
        rows.append(len(tokens))
        return step(pool, tokens)

    monkeypatch.setattr(Pool, "step", counted)
    stories = generator.batch(["Lily"] * 7, GenerationConfig(6), SamplingParams(0.0, rules=LogitsRules(min_tokens=9)))
    assert [len(story.ids) for story in stories] == [6] * 7
    assert rows == [3] * 10 + [1] * 5


def test_a_prompt_is_read_once_however_many_stories_begin_with_it(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefill, read = Pool.prefill, list[int]()

    def counted(pool: Pool, row: int, ids: Sequence[int]) -> FloatArray:
        read.append(len(ids))
        return prefill(pool, row, ids)

    monkeypatch.setattr(Pool, "prefill", counted)
    one, longer = generator.encode("Once upon"), generator.encode("Once upon a time")
    generator.batch(["Once upon"] * 4 + ["Once upon a time"], GenerationConfig(3))
    assert read == [len(one), len(longer) - len(one)]


def test_int8_in_a_batch_is_repeatable_and_reads_each_prompt_whole(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = load(bundles.tiny_bundle(tiny_checkpoint), "int8")
    prefill, read = Pool.prefill, list[int]()

    def counted(pool: Pool, row: int, ids: Sequence[int]) -> FloatArray:
        read.append(len(ids))
        return prefill(pool, row, ids)

    monkeypatch.setattr(Pool, "prefill", counted)
    prompts = ["Once upon", "Once upon a time", "Once upon a time"]
    first = generator.batch(prompts, GenerationConfig(20), SamplingParams(seed=3))
    assert read == [len(generator.encode(prompt)) for prompt in prompts[:2]]
    generator.generate("Lily", max_tokens=5)
    again = generator.batch(prompts, GenerationConfig(20), SamplingParams(seed=3))
    assert [story.ids for story in first] == [story.ids for story in again]


def test_without_a_seed_it_reports_which_it_took(generator: Generator) -> None:
    stories = generator.batch(["Lily"] * 3, GenerationConfig(10))
    assert [story.stats.seed - stories[0].stats.seed for story in stories] == [0, 1, 2]
    for story in stories:
        assert generator.generate("Lily", max_tokens=10, seed=story.stats.seed).full_text == story.full_text


def test_ctrl_c_keeps_what_was_written(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = generator.batch(PROMPTS, GenerationConfig(12), SamplingParams(0.0))
    interrupt_after(5, Pool, monkeypatch)
    for story, full in zip(generator.batch(PROMPTS, GenerationConfig(12), SamplingParams(0.0)), whole, strict=True):
        assert story.stats.finish_reason == "interrupted"
        assert story.ids == full.ids[:6]
        assert full.full_text.startswith(story.full_text)


def test_an_error_keeps_what_was_written(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch(generator, ["Lily", "Tom"], GenerationConfig(9), SamplingParams(0.0))
    step, steps = Pool.step, iter(range(3))

    def damaged(pool: Pool, tokens: Sequence[int]) -> FloatArray:
        logits = step(pool, tokens)
        return logits if next(steps, None) is not None else logits * float("nan")

    monkeypatch.setattr(Pool, "step", damaged)
    with pytest.raises(SlmxError, match=r"^fp32: its logits are no numbers"):
        list(batch.run())
    assert [len(story.ids) for story in batch.completions] == [4, 4]
    assert [story.stats.finish_reason for story in batch.completions] == ["interrupted"] * 2


def test_a_batch_of_no_prompts_is_one_line(generator: Generator) -> None:
    with pytest.raises(SlmxError, match="no prompts"):
        generator.batch([])


@pytest.mark.slow
def test_a_graph_of_standard_operators_writes_no_batch(tiny_checkpoint: Path) -> None:
    portable = load(bundles.tiny_bundle_of_all(tiny_checkpoint), "portable")
    with pytest.raises(SlmxError, match="writes one story at a time; take fp32 or int8"):
        portable.batch(["a", "b"])
