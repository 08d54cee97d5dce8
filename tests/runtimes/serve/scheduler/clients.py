"""Clients of a scheduler, the steps that a test allows its model, and stories."""

from __future__ import annotations

import threading

import pytest

from runtimes.engine.batcher import Batcher
from runtimes.engine.generator import Generator
from runtimes.engine.scoring import TextScore
from runtimes.engine.story import Story
from runtimes.serve.scheduler.job import Job, Update
from runtimes.serve.scheduler.scheduler import Scheduler
from runtimes.types import GenerationConfig, SamplingParams
from tests.waiting import PATIENCE

LONG = "One day, Tom went to the park with a big ball. Lily saw a little dog in the garden."
ENDLESS = GenerationConfig(ignore_eos=True)


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
        monkeypatch.setattr("runtimes.serve.scheduler.scheduler.perf_counter", lambda: self.clock)

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
