"""Many clients and one model: fair turns, stories that stop at the next step, errors of one story, the end."""

from __future__ import annotations

import gc
import os
import string
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from runtimes import load
from runtimes.engine.batcher import Batcher
from runtimes.engine.cache import FloatArray
from runtimes.engine.generator import Generator
from runtimes.engine.pool import Pool
from runtimes.engine.scoring import TextScore
from runtimes.engine.story import Story
from runtimes.serve.scheduler import TURN_SECONDS, Job, QueueFullError, Scheduler, StoppingError, Update
from runtimes.types import GenerationConfig, SamplingParams
from slm.errors import SlmxError, UsageError
from tests import bundles

LONG = "One day, Tom went to the park with a big ball. Lily saw a little dog in the garden."
ENDLESS = GenerationConfig(ignore_eos=True)
PATIENCE = 30  # seconds until a test that waits has failed


@pytest.fixture(scope="module")
def generator(tiny_checkpoint: Path) -> Generator:
    return load(bundles.tiny_bundle(tiny_checkpoint), "fp32")


class Steps:
    """Lets the thread of the model take as many steps as a test allows. It records which works are added and when."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.added: list[Story | TextScore] = []
        self.clock = 0.0
        self.seconds = 0.0  # that each step takes
        self._allowed = threading.Semaphore(0)
        self._arrived = threading.Semaphore(0)
        step, add = Batcher.step, Batcher.add

        def stepped(batcher: Batcher) -> list[tuple[Story, str]]:
            self._arrived.release()
            assert self._allowed.acquire(timeout=PATIENCE)
            self.clock += self.seconds
            return step(batcher)

        def added(batcher: Batcher, work: Story | TextScore) -> None:
            self.added.append(work)
            add(batcher, work)

        monkeypatch.setattr(Batcher, "step", stepped)
        monkeypatch.setattr(Batcher, "add", added)
        monkeypatch.setattr("runtimes.serve.scheduler.perf_counter", lambda: self.clock)

    def wait(self) -> None:
        """Waits until the thread is about to take a step. It has then started what it starts."""
        assert self._arrived.acquire(timeout=PATIENCE)

    def take(self, count: int) -> None:
        """Takes steps, and waits until the thread is about to take the one after them."""
        for _ in range(count):
            self._allowed.release()
            self.wait()

    def allow(self, count: int) -> None:
        """Lets the thread take steps."""
        self._allowed.release(count)

    def go_on(self) -> None:
        """Lets the thread run freely."""
        self.allow(1_000_000)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


@pytest.fixture
def start(generator: Generator) -> Iterator[Callable[..., Scheduler]]:
    """Starts schedulers, which end with the test."""
    started: list[Scheduler] = []

    def one(slots: int = 2, queue: int = 64, prompt_part: int = 128) -> Scheduler:
        started.append(Scheduler(generator, slots, queue, prompt_part))
        return started[-1]

    yield one
    for scheduler in started:
        assert scheduler.drain(PATIENCE), "the test left work behind"


class Client:
    """A client that waits for its job."""

    def __init__(self, name: str = "a") -> None:
        self.name = name
        self.notified = 0
        self.updates: list[Update] = []
        self.job: Job | None = None
        self._news = threading.Semaphore(0)

    def notify(self) -> None:
        self.notified += 1
        self._news.release()

    def asks(self, scheduler: Scheduler, *stories: Story) -> Job:
        self.job = scheduler.submit(stories, self.name, self.notify)
        return self.job

    def result(self) -> list[Update]:
        """All updates, when the job has ended."""
        assert self.job is not None
        while not self.job.done:
            assert self._news.acquire(timeout=PATIENCE)
            self.updates += self.job.take()
        return self.updates

    def texts(self) -> dict[int, str]:
        """The text of each story, when the job has ended. Its updates must join to its completion."""
        texts, ids, logprobs = dict[int, str](), dict[int, list[int]](), dict[int, list[float]]()
        for update in self.result():
            number = update.index
            texts[number] = texts.get(number, "") + update.text
            ids[number] = ids.get(number, []) + update.ids
            logprobs[number] = logprobs.get(number, []) + update.logprobs
            if update.completion is not None:
                whole = update.completion
                assert (texts[number], ids[number]) == (whole.completion_text, whole.ids)
                assert logprobs[number] == whole.logprobs
        return texts


def story(generator: Generator, prompt: str = "Lily", config: GenerationConfig = ENDLESS, seed: int = 0) -> Story:
    return generator.story(prompt, config, SamplingParams(1.0, seed=seed))


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
    assert figures.tokens >= written, "what is set aside still counts"
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


def test_a_story_that_is_set_aside_can_be_cancelled(
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
    scheduler, client = start(prompt_part=4), Client()
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
    assert (figures.running, figures.waiting, figures.slots, figures.queue) == (2, 2, 2, 3)
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
        scheduler.score("Lily", "a", lambda: None)
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
    schedulers = [Scheduler(generator) for _ in range(3)]
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
    scheduler, client, other = start(2, prompt_part=5), Client(), Client()
    other.asks(scheduler, story(generator, config=GenerationConfig(30)))
    client.job = scheduler.score(LONG, "a", client.notify, top_logprobs=2)
    (found,) = client.result()
    assert found.ids == generator.tokenize(LONG)
    alone = generator.generate("", max_tokens=len(found.ids), logprobs=True, temperature=0.0)
    assert len(found.logprobs) == len(found.top_logprobs) == len(found.ids)
    assert found.logprobs[0] != alone.logprobs[0]
    client.updates.clear()
    client.job = scheduler.score(alone.ids, "a", client.notify)
    (found,) = client.result()
    assert found.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
    other.result()
    figures = scheduler.figures()
    assert figures.stories == {"length": 1}


def test_an_empty_text_has_no_log_probabilities(generator: Generator, start: Callable[..., Scheduler]) -> None:
    client = Client()
    client.job = start().score("", "a", client.notify)
    (found,) = client.result()
    assert (found.ids, found.logprobs, found.error) == ([], [], None)


def test_a_score_can_be_cancelled(generator: Generator, start: Callable[..., Scheduler], steps: Steps) -> None:
    scheduler, client = start(prompt_part=3), Client()
    client.job = scheduler.score(LONG, "a", client.notify)
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
        start().score([5] * 64, "a", lambda: None)


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
    with pytest.raises(UsageError, match="prompt part must be at least 1"):
        Scheduler(generator, prompt_part=0)
    with pytest.raises(UsageError, match="queue must be at least 0, not -1"):
        Scheduler(generator, queue=-1)
    assert threading.active_count() == threads


@pytest.mark.slow
def test_a_variant_that_writes_one_story_at_a_time_is_refused(tiny_checkpoint: Path) -> None:
    portable = load(bundles.tiny_bundle_of_all(tiny_checkpoint), "portable")
    with pytest.raises(SlmxError, match="writes one story at a time; take fp32 or int8"):
        Scheduler(portable)
