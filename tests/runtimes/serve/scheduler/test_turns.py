"""Clients share the slots of a scheduler, and each story is the one that it would be alone."""

from __future__ import annotations

from collections.abc import Callable

from runtimes.engine.generator import Generator
from runtimes.engine.scoring import TextScore
from runtimes.engine.story import Story
from runtimes.serve.scheduler.scheduler import TURN_SECONDS, Scheduler
from runtimes.types import GenerationConfig, SamplingParams
from tests.runtimes.serve.scheduler.clients import ENDLESS, LONG, Client, Steps, story


def test_the_stories_of_a_job_are_the_ones_they_would_be_alone(
    generator: Generator, start: Callable[..., Scheduler]
) -> None:
    scheduler, clients = start(3), [Client(name) for name in "abc"]
    config = GenerationConfig(20, stop="dog", logprobs=True)
    for number, client in enumerate(clients):
        client.asks(scheduler, *[story(generator, LONG[: 9 * number], config, seed) for seed in range(4)])
    for number, client in enumerate(clients):
        texts = client.texts()
        for seed in range(4):
            alone = generator.generate(LONG[: 9 * number], max_tokens=20, stop="dog", temperature=1.0, seed=seed)
            assert texts[seed] == alone.completion_text


def test_each_story_ends_once_and_with_its_completion(generator: Generator, start: Callable[..., Scheduler]) -> None:
    client = Client()
    client.asks(
        start(), *[story(generator, config=GenerationConfig(5, top_logprobs=2), seed=seed) for seed in range(3)]
    )
    ends = [update for update in client.result() if update.completion is not None]
    assert sorted(update.index for update in ends) == [0, 1, 2]
    assert all(update.error is None for update in client.updates)
    for number in range(3):
        top = [pair for update in client.updates if update.index == number for pair in update.top_logprobs]
        completion = next(update.completion for update in ends if update.index == number)
        assert completion is not None
        assert top == completion.top_logprobs
        assert [len(pair) for pair in top] == [2] * len(completion.ids)


def test_a_client_with_one_story_does_not_wait_for_the_fifty_of_another(
    generator: Generator, start: Callable[..., Scheduler], steps: Steps
) -> None:
    scheduler, many, one = start(2, 64), Client("many"), Client("one")
    many.asks(scheduler, *[story(generator, config=GenerationConfig(3 + seed % 2), seed=seed) for seed in range(50)])
    steps.wait()
    single = story(generator, config=GenerationConfig(3), seed=99)
    one.asks(scheduler, single)
    steps.take(3)
    assert steps.added.index(single) == 2, "it takes the first slot that is free"
    steps.go_on()
    many.result()
    one.result()


def test_long_stories_of_one_client_do_not_keep_another_one_waiting(
    generator: Generator, start: Callable[..., Scheduler], steps: Steps
) -> None:
    scheduler, many, one = start(4, 64), Client("many"), Client("one")
    longs = [story(generator, seed=seed) for seed in range(6)]
    singles = [story(generator, config=GenerationConfig(5), seed=seed) for seed in range(3)]
    many.asks(scheduler, *longs)
    steps.wait()
    steps.take(3)
    written = scheduler.figures().tokens
    one.asks(scheduler, *singles)
    steps.take(1)  # the step that had begun
    figures = scheduler.figures()
    assert figures.tokens >= written, "what is preempted still counts"
    assert (figures.running, figures.waiting) == (4, 5)
    assert steps.added[4:] == singles[:2], "each client has two slots"
    steps.go_on()
    many.result()
    texts = one.texts()
    for number, text in many.texts().items():
        assert text == alone(generator, ENDLESS, number)
    assert texts == {number: alone(generator, GenerationConfig(5), number) for number in range(3)}


def alone(generator: Generator, config: GenerationConfig, seed: int) -> str:
    """The text of `story` without a scheduler."""
    stream = generator.stream("Lily", config, SamplingParams(1.0, seed=seed), reuse=False)
    return "".join(stream)


def test_clients_share_a_slot_by_turns(generator: Generator, start: Callable[..., Scheduler], steps: Steps) -> None:
    scheduler, first, second = start(1), Client("a"), Client("b")
    steps.seconds = TURN_SECONDS / 4
    stories = [story(generator, seed=seed) for seed in range(3)]
    first.asks(scheduler, *stories[:2])
    steps.wait()
    second.asks(scheduler, stories[2])
    steps.take(4)
    assert steps.added == [stories[0], stories[2]]
    steps.take(4)
    assert steps.added == [stories[0], stories[2], stories[0]], "it goes on before the next one of its client"
    assert all(stories[number].ids for number in (0, 2))
    steps.go_on()
    assert first.texts() == {number: alone(generator, ENDLESS, number) for number in range(2)}
    assert second.texts() == {0: alone(generator, ENDLESS, 2)}


def test_a_story_that_is_preempted_can_be_cancelled(
    generator: Generator, start: Callable[..., Scheduler], steps: Steps
) -> None:
    scheduler, many, one = start(2), Client("many"), Client("one")
    job = many.asks(scheduler, story(generator), story(generator, seed=1))
    steps.wait()
    steps.take(2)
    one.asks(scheduler, story(generator, config=GenerationConfig(30)))
    steps.take(1)
    assert scheduler.figures().waiting == 1
    job.cancel()
    steps.take(1)
    assert (scheduler.figures().waiting, scheduler.figures().running) == (0, 1)
    steps.go_on()
    ends = [update.completion for update in many.result() if update.completion is not None]
    assert [end.stats.finish_reason for end in ends] == ["interrupted"] * 2
    assert all(end.ids for end in ends)
    one.result()


def test_clients_take_turns(generator: Generator, start: Callable[..., Scheduler], steps: Steps) -> None:
    """One slot: a, b and c are next by turns, whoever asked first and for how many."""
    scheduler, clients = start(1), {name: Client(name) for name in "abc"}
    owners: dict[Story | TextScore, str] = {}
    for name, count in (("a", 4), ("b", 2), ("c", 3)):
        stories = [story(generator, config=GenerationConfig(1)) for _ in range(count)]
        owners.update(dict.fromkeys(stories, name))
        clients[name].asks(scheduler, *stories)
        if name == "a":
            steps.wait()
    steps.go_on()
    for client in clients.values():
        client.result()
    assert "".join(owners[work] for work in steps.added) == "aabcabcac"
