"""Stories that are cancelled, cut or end with an error, and the end of a scheduler."""

from __future__ import annotations

import gc
import os
import string
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from runtimes.engine.arrays import FloatArray
from runtimes.engine.batcher import Batcher
from runtimes.engine.generator import Generator
from runtimes.engine.pool import Pool
from runtimes.engine.story import Story
from runtimes.serve.scheduler.errors import QueueFullError, StoppingError
from runtimes.serve.scheduler.scheduler import Scheduler
from runtimes.types import GenerationConfig
from slm.console.errors import SlmxError
from tests.runtimes.serve.scheduler.clients import LONG, Client, Steps, story
from tests.waiting import PATIENCE


def test_what_waits_is_dropped_at_once_and_never_read(
    generator: Generator, start: Callable[..., Scheduler], steps: Steps
) -> None:
    scheduler, running, waiting = start(1, 1), Client("a"), Client("b")
    steps.clock = 1e6
    running.asks(scheduler, story(generator))
    steps.wait()
    cancelled = story(generator, LONG)
    job = waiting.asks(scheduler, cancelled)
    assert scheduler.figures().waiting == 1
    job.cancel()
    assert scheduler.figures().waiting == 0
    steps.take(2)
    (last,) = waiting.result()
    assert last.completion is not None
    assert (last.completion.stats.finish_reason, last.text, last.ids) == ("interrupted", "", [])
    assert cancelled not in steps.added
    assert scheduler.figures().cancelled == 1
    waiting.asks(scheduler, story(generator, config=GenerationConfig(2)))
    with pytest.raises(QueueFullError, match="try again in 1 s"):  # stories that never ran took no time
        waiting.asks(scheduler, story(generator))
    steps.go_on()
    waiting.result()
    running.result()


def test_a_prompt_that_is_being_read_is_read_no_further(
    generator: Generator, start: Callable[..., Scheduler], steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefill, read = Pool.prefill, list[int]()

    def counted(pool: Pool, row: int, ids: Sequence[int]) -> FloatArray:
        read.append(len(ids))
        return prefill(pool, row, ids)

    monkeypatch.setattr(Pool, "prefill", counted)
    scheduler, client = start(prefill_chunk=4), Client()
    job = client.asks(scheduler, story(generator, LONG))
    steps.wait()
    steps.take(2)
    assert read == [4, 4]
    job.cancel()
    steps.take(1)  # the step that had begun
    steps.go_on()
    (last,) = client.result()
    assert last.ids == []
    assert read == [4, 4, 4]
    assert scheduler.figures().running == 0


def test_a_story_that_is_being_written_stops_at_the_next_step(
    generator: Generator, start: Callable[..., Scheduler], steps: Steps
) -> None:
    scheduler, leaving, staying = start(), Client("a"), Client("b")
    held_back = GenerationConfig(ignore_eos=True, stop=[f"{end}\0" for end in string.printable])
    written, other = story(generator, config=held_back), story(generator, config=GenerationConfig(30))
    job = leaving.asks(scheduler, written)
    staying.asks(scheduler, other)
    steps.wait()
    steps.take(4)
    before, others = len(written.ids), len(other.ids)  # the other one may have joined a step later
    job.cancel()
    job.cancel()
    steps.take(3)
    assert len(written.ids) == before + 1, "one step had begun"
    assert len(other.ids) == others + 3
    steps.go_on()
    text = leaving.texts()[0]
    assert text == written.completion().completion_text == generator.detokenize(written.ids)
    assert staying.result()[-1].completion is not None
    figures = scheduler.figures()
    assert (figures.cancelled, figures.stories) == (1, {"interrupted": 1, "length": 1})
    job.cancel()
    assert scheduler.figures().cancelled == 1


def test_only_the_stories_of_the_job_stop(generator: Generator, start: Callable[..., Scheduler], steps: Steps) -> None:
    """Two jobs of one client, of which one runs and waits in part."""
    scheduler, leaving, staying = start(2), Client(), Client()
    job = leaving.asks(scheduler, *[story(generator, seed=seed) for seed in range(3)])
    steps.wait()
    staying.asks(scheduler, *[story(generator, config=GenerationConfig(4), seed=seed) for seed in range(3)])
    job.cancel()
    assert scheduler.figures().waiting == 3
    steps.go_on()
    assert [update.completion is not None for update in leaving.result()[-3:]] == [True] * 3
    assert {len(update.completion.ids) for update in staying.result() if update.completion} == {4}
    assert scheduler.figures().cancelled == 3


def test_while_it_drains_what_runs_and_waits_ends_and_nothing_new_begins(
    generator: Generator, start: Callable[..., Scheduler], steps: Steps
) -> None:
    scheduler, client = start(1), Client()
    client.asks(scheduler, *[story(generator, config=GenerationConfig(3), seed=seed) for seed in range(3)])
    steps.wait()
    ended: list[bool] = []
    draining = threading.Thread(target=lambda: ended.append(scheduler.drain(PATIENCE)))
    draining.start()
    while not scheduler._draining:
        pass
    with pytest.raises(StoppingError, match=r"^the server is stopping: "):
        Client().asks(scheduler, story(generator))
    with pytest.raises(StoppingError):
        scheduler.submit([], "a", lambda: None, texts=[generator.tokenize("Lily")])
    steps.go_on()
    draining.join(PATIENCE)
    assert ended == [True]
    assert [len(update.completion.ids) for update in client.result() if update.completion] == [3, 3, 3]
    assert not scheduler.alive


def test_after_the_grace_stories_are_cut_and_told(
    generator: Generator, start: Callable[..., Scheduler], steps: Steps
) -> None:
    scheduler, client = start(1), Client()
    client.asks(scheduler, story(generator), story(generator, LONG))
    steps.wait()
    steps.take(3)
    found: list[bool] = []
    draining = threading.Thread(target=lambda: found.append(scheduler.drain(0.0)))
    draining.start()
    while not scheduler._stopped:
        pass
    steps.go_on()
    draining.join(PATIENCE)
    assert found == [False]
    assert not scheduler.alive
    ends = [update.completion for update in client.result() if update.completion is not None]
    assert [end.stats.finish_reason for end in ends] == ["interrupted"] * 2
    assert sorted(len(end.ids) for end in ends) == [0, 5]
    assert scheduler.drain(0.0)
    assert scheduler.figures().stories == {"interrupted": 2}
    assert scheduler.figures().cancelled == 0


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
def test_after_draining_thread_descriptors_and_caches_are_freed(generator: Generator) -> None:
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    schedulers = [Scheduler(generator, 8, 64) for _ in range(3)]
    assert threading.active_count() == threads + 3
    caches: list[Callable[[], object]] = []
    for scheduler in schedulers:
        client = Client()
        client.asks(scheduler, story(generator, LONG, GenerationConfig(3)))
        client.result()
        caches += [weakref.ref(scheduler._batcher._pool), weakref.ref(scheduler._batcher._prompts)]
        assert scheduler.drain(PATIENCE)
    gc.collect()
    assert [cache() for cache in caches] == [None] * 6
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_an_error_of_one_story_is_told_and_the_others_go_on(
    generator: Generator, start: Callable[..., Scheduler], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Pool.step

    def damaged(pool: Pool, tokens: Sequence[int]) -> FloatArray:
        logits = step(pool, tokens)
        for row, ids in enumerate(pool.ids):
            if ids[:2] == unlucky.prompt_ids[:2] and len(ids) == 6:
                logits[row] = np.nan
        return logits

    monkeypatch.setattr(Pool, "step", damaged)
    scheduler, clients = start(3), [Client(name) for name in "abc"]
    unlucky, config = story(generator, "Tom"), GenerationConfig(12)
    stories = [story(generator, config=config), unlucky, story(generator, LONG, config)]
    for client, one in zip(clients, stories, strict=True):
        client.asks(scheduler, one)
    last = clients[1].result()[-1]
    assert last.error is not None
    assert str(last.error).startswith("fp32: its logits are no numbers")
    assert last.completion is not None
    assert (last.completion.stats.finish_reason, len(last.completion.ids) > 0) == ("interrupted", True)
    for number, prompt in ((0, "Lily"), (2, LONG)):
        alone = generator.generate(prompt, max_tokens=12, temperature=1.0, seed=0)
        assert clients[number].texts() == {0: alone.completion_text}
    assert scheduler.figures().stories["error"] == 1
    assert scheduler.alive


def test_a_step_that_fails_ends_what_runs_and_the_rest_goes_on(
    generator: Generator, start: Callable[..., Scheduler], steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler, client = start(2), Client()
    config = GenerationConfig(5, ignore_eos=True)
    client.asks(scheduler, *[story(generator, config=config, seed=seed) for seed in range(3)])
    steps.wait()
    step, failures = Pool.step, iter([SlmxError("onnxruntime cannot run this model")])

    def failing(pool: Pool, tokens: Sequence[int]) -> FloatArray:
        for error in failures:
            raise error
        return step(pool, tokens)

    monkeypatch.setattr(Pool, "step", failing)
    steps.go_on()
    ends = {update.index: update for update in client.result() if update.completion is not None}
    expected = "onnxruntime cannot run this model"
    assert [ends[number].error and str(ends[number].error) for number in range(3)] == [expected, expected, None]
    completion = ends[2].completion
    assert completion is not None
    assert len(completion.ids) == 5
    assert scheduler.alive


def test_an_error_of_the_batch_itself_ends_what_runs_and_it_begins_anew(
    generator: Generator,
    start: Callable[..., Scheduler],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    step, numbers = Batcher.step, iter(range(1000))

    def failing(batcher: Batcher) -> list[tuple[Story, str]]:
        if next(numbers) == 3:
            raise RuntimeError("a bug")
        return step(batcher)

    monkeypatch.setattr(Batcher, "step", failing)
    scheduler, client = start(1), Client()
    client.asks(scheduler, story(generator), story(generator, config=GenerationConfig(5)))
    ends = [update for update in client.result() if update.completion is not None]
    assert [update.error and str(update.error) for update in ends] == ["internal error (RuntimeError): a bug", None]
    assert [str(record.exc_info and record.exc_info[1]) for record in caplog.records] == ["a bug"]
    assert scheduler.alive
    assert scheduler.figures().stories == {"error": 1, "length": 1}
