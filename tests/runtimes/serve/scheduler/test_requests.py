"""What a scheduler takes, tells its clients, scores and counts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from runtimes import load
from runtimes.engine.generator import Generator
from runtimes.serve.scheduler.errors import QueueFullError, StoppingError
from runtimes.serve.scheduler.job import Job
from runtimes.serve.scheduler.scheduler import Scheduler
from runtimes.types import GenerationConfig
from slm.console.errors import SlmxError, UsageError
from tests import bundles
from tests.runtimes.serve.scheduler.clients import LONG, Client, Steps, story


def test_a_full_queue_takes_all_stories_of_a_request_or_none(
    generator: Generator, start: Callable[..., Scheduler], steps: Steps
) -> None:
    scheduler, first, second = start(2, 3), Client("a"), Client("b")
    first.asks(scheduler, *[story(generator, config=GenerationConfig(2)) for _ in range(4)])
    steps.wait()
    with pytest.raises(QueueFullError, match=r"^the queue has no room \(2 stories waiting\): try again in 1") as caught:
        second.asks(scheduler, story(generator), story(generator))
    assert caught.value.retry_after == 1.0
    figures = scheduler.figures()
    assert (figures.running, figures.waiting, figures.slots) == (2, 2, 2)
    second.asks(scheduler, story(generator, config=GenerationConfig(2)))
    with pytest.raises(QueueFullError):
        second.asks(scheduler, story(generator))
    with pytest.raises(UsageError, match=r"^6 stories in one request: ask for 1 to 5$"):
        second.asks(scheduler, *[story(generator) for _ in range(6)])
    with pytest.raises(UsageError, match=r"^0 stories in one request: ask for 1 to 5$"):
        scheduler.submit([], "b", second.notify)
    steps.go_on()
    first.result()
    second.result()


def test_a_client_cannot_fill_the_queue(generator: Generator, start: Callable[..., Scheduler], steps: Steps) -> None:
    scheduler, many, one = start(2, 16), Client("many"), Client("one")
    assert scheduler.most == 16
    short = GenerationConfig(2)
    with pytest.raises(UsageError, match="ask for 1 to 16"):
        many.asks(scheduler, *[story(generator) for _ in range(17)])
    many.asks(scheduler, *[story(generator, config=short) for _ in range(16)])
    steps.wait()
    with pytest.raises(QueueFullError):
        Client("many").asks(scheduler, story(generator))
    one.asks(scheduler, story(generator, config=short), story(generator, config=short))
    steps.go_on()
    many.result()
    one.result()


def test_the_time_to_try_again_grows_with_what_waits(
    generator: Generator, start: Callable[..., Scheduler], steps: Steps
) -> None:
    scheduler, client = start(1, 2), Client()
    for seconds in (4.0, 400.0, 4.0):  # one story that took long does not count
        steps.seconds = seconds
        client.asks(scheduler, story(generator, config=GenerationConfig(2)))
        steps.allow(1)
        client.result()
    assert steps.clock == 408.0
    client.asks(scheduler, *[story(generator, config=GenerationConfig(2)) for _ in range(2)])
    while scheduler.figures().waiting > 1:
        pass
    with pytest.raises(QueueFullError) as caught:
        Client().asks(scheduler, *[story(generator) for _ in range(2)])
    assert caught.value.retry_after == 12.0
    steps.seconds = 0.0
    steps.go_on()
    client.result()


def test_a_client_is_notified_at_the_first_id_then_every_ten_milliseconds_and_at_the_end(
    generator: Generator, start: Callable[..., Scheduler], steps: Steps
) -> None:
    """Steps take 3 ms. So there is news at 3 ms, then after each fourth step, which is the first after 10 ms."""
    steps.seconds = 0.003
    scheduler, client = start(), Client()
    client.asks(scheduler, story(generator, config=GenerationConfig(21, ignore_eos=True)))
    steps.wait()
    counts = []
    for _ in range(19):
        steps.take(1)
        counts.append(client.notified)
    assert counts == [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5]
    steps.go_on()
    client.result()
    assert client.notified == 6
    assert [len(update.ids) for update in client.updates] == [2, 4, 4, 4, 4, 3]


def test_a_story_that_ends_is_told_at_once(generator: Generator, start: Callable[..., Scheduler], steps: Steps) -> None:
    steps.seconds = 0.001
    scheduler, client, other = start(), Client(), Client()
    client.asks(scheduler, story(generator, config=GenerationConfig(4, ignore_eos=True)))
    other.asks(scheduler, story(generator))
    steps.wait()
    steps.take(3)
    assert client.notified == 2
    assert client.result()[-1].completion is not None
    assert other.notified == 1
    steps.go_on()
    other.result()


def test_a_client_that_cannot_be_notified_is_gone(generator: Generator, start: Callable[..., Scheduler]) -> None:
    scheduler, client = start(2), Client()

    def fails() -> None:
        raise RuntimeError("the event loop is closed")

    gone = scheduler.submit([story(generator)], "gone", fails)
    client.asks(scheduler, story(generator, config=GenerationConfig(40, ignore_eos=True)))
    client.result()
    while not gone.done:
        gone.take()
    assert scheduler.figures().cancelled == 1


def test_a_text_is_scored_beside_stories(generator: Generator, start: Callable[..., Scheduler]) -> None:
    scheduler, client, other = start(2, prefill_chunk=5), Client(), Client()
    other.asks(scheduler, story(generator, config=GenerationConfig(30)))
    client.job = scheduler.submit([], "a", client.notify, texts=[generator.tokenize(LONG)], top_logprobs=2)
    (found,) = client.result()
    assert found.ids == generator.tokenize(LONG)
    alone = generator.generate("", max_tokens=len(found.ids), logprobs=True, temperature=0.0)
    assert len(found.logprobs) == len(found.top_logprobs) == len(found.ids)
    assert found.logprobs[0] != alone.logprobs[0]
    client.updates.clear()
    client.job = scheduler.submit([], "a", client.notify, texts=[alone.ids])
    (found,) = client.result()
    assert found.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
    other.result()
    figures = scheduler.figures()
    assert figures.stories == {"length": 1}


def test_an_empty_text_has_no_log_probabilities(generator: Generator, start: Callable[..., Scheduler]) -> None:
    client = Client()
    client.job = start().submit([], "a", client.notify, texts=[[]])
    (found,) = client.result()
    assert (found.ids, found.logprobs, found.error) == ([], [], None)


def test_a_score_can_be_cancelled(generator: Generator, start: Callable[..., Scheduler], steps: Steps) -> None:
    scheduler, client = start(prefill_chunk=3), Client()
    client.job = scheduler.submit([], "a", client.notify, texts=[generator.tokenize(LONG)])
    steps.wait()
    steps.take(2)
    client.job.cancel()
    steps.go_on()
    (found,) = client.result()
    assert isinstance(found.error, StoppingError)
    assert len(found.logprobs) == 9


def test_a_text_that_is_too_long_to_score_is_refused_at_once(
    generator: Generator, start: Callable[..., Scheduler]
) -> None:
    with pytest.raises(SlmxError, match="context holds 64 tokens"):
        start().submit([], "a", lambda: None, texts=[[5] * 64])


def test_figures_count_what_was_done(generator: Generator, start: Callable[..., Scheduler], steps: Steps) -> None:
    scheduler, client = start(2), Client()
    stories = [story(generator, LONG, GenerationConfig(4, ignore_eos=True)) for _ in range(3)]
    client.asks(scheduler, *stories)
    steps.wait()
    steps.take(2)
    figures = scheduler.figures()
    assert (figures.running, figures.waiting, figures.tokens, figures.steps, figures.stories) == (2, 1, 6, 2, {})
    steps.go_on()
    client.result()
    figures, size = scheduler.figures(), len(stories[0].prompt_ids)
    assert (figures.running, figures.waiting, figures.tokens, figures.stories) == (0, 0, 12, {"length": 3})
    assert (figures.prompt_tokens, figures.reused_prompt_tokens, figures.alive) == (3 * size, 2 * size, True)
    assert figures.steps == 6


def test_a_number_out_of_range_starts_no_thread(generator: Generator) -> None:
    threads = threading.active_count()
    with pytest.raises(UsageError, match="prefill chunk must be at least 1"):
        Scheduler(generator, 8, 64, prefill_chunk=0)
    with pytest.raises(UsageError, match="queue must be at least 0, not -1"):
        Scheduler(generator, 8, -1)
    assert threading.active_count() == threads


@pytest.mark.slow
def test_a_variant_that_writes_one_story_at_a_time_is_refused(tiny_checkpoint: Path) -> None:
    portable = load(bundles.tiny_bundle_of_all(tiny_checkpoint), "portable")
    with pytest.raises(SlmxError, match="writes one story at a time; take fp32 or int8"):
        Scheduler(portable, 8, 64)


@pytest.mark.parametrize(("running", "told"), [(1, [0.0, 0.011, 0.022, 0.033]), (8, [0.0, 0.033])])
def test_many_running_stories_are_told_more_rarely(generator: Generator, running: int, told: list[float]) -> None:
    times: list[float] = []
    now = [0.0]
    job = Job("a", [story(generator)], lambda: times.append(now[0]), lambda job: None)
    for step in range(4):
        now[0] = 0.011 * step
        job.publish(now[0], running)
    assert times == pytest.approx(told)


def test_a_client_that_wants_the_whole_is_told_once_at_the_end(
    generator: Generator, start: Callable[..., Scheduler]
) -> None:
    told = {}
    for whole in (False, True):
        scheduler, ended = start(2), threading.Event()
        counts: list[int] = []

        def notify(counts: list[int] = counts, ended: threading.Event = ended) -> None:
            counts.append(1)
            ended.set()

        job = scheduler.submit(
            [story(generator, config=GenerationConfig(12, ignore_eos=True)) for _ in range(2)],
            "a",
            notify,
            whole,
        )
        updates = []
        while not job.done:
            assert ended.wait(30)
            ended.clear()
            updates += job.take()
        told[whole] = ["".join(update.text for update in updates if update.index == place) for place in range(2)]
        assert all(len(update.ids) == 12 for update in updates) is whole
        assert (len(counts) == 1) is whole
    assert all(len(text) > 5 for text in told[True])
