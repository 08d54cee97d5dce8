"""Writes the stories of many clients with one model, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter

from runtimes.engine.batcher import PREFILL_CHUNK, Batcher
from runtimes.engine.generator import Generator
from runtimes.engine.scoring import TextScore
from runtimes.engine.story import Story
from runtimes.serve.scheduler.errors import QueueFullError, StoppingError
from runtimes.serve.scheduler.fair_queue import FairQueue
from runtimes.serve.scheduler.figures import SchedulerFigures
from runtimes.serve.scheduler.job import Item, Job
from runtimes.types import check_least
from slm.console.counted import count_stories
from slm.console.errors import UsageError

TURN_SECONDS = 5.0  # for which a story runs at least if clients share a slot
OTHERS_SHARE = 8  # one place in this many of the queue is kept from each client, for the others
LEAST_WAIT, MOST_WAIT = 1.0, 60.0  # seconds after which a client may try again
RECENT_STORIES = 31  # the median of their seconds is how long a story takes
log = logging.getLogger(__name__)


class Scheduler:
    """Writes the stories of all clients of one model. Its methods may be called from any thread.

    Stories join the others at the next step. Each client gets the same share of the slots. If a client waits while
    another has more than its share, a story of that one is preempted between two steps and goes on later. If there are
    fewer slots than clients, they take turns. A story that fails ends with an error, and the others go on.

    Args:
        generator: The model. The caller closes it, after `drain`.
        slots: The most stories that run at the same time, at most `generator.slots`.
        queue: The most stories that wait.
        prefill_chunk: The most positions of prompts that are read between two steps.

    Attributes:
        most: The most stories of one client that run and wait. An eighth of the queue is kept for others.

    Raises:
        SlmxError: The variant writes one story at a time, or a number is out of range.
    """

    def __init__(self, generator: Generator, slots: int, queue: int, prefill_chunk: int = PREFILL_CHUNK) -> None:
        check_least("queue", queue, 0)
        self.generator = generator
        self._batcher = Batcher(generator, slots, prefill_chunk)
        self.slots = self._batcher.slots
        self.queue = queue
        self.most = self.slots + queue - queue // OTHERS_SHARE
        self._condition = threading.Condition()  # it guards what follows, except what only the thread uses
        self._queue = FairQueue()
        self._running: dict[Story | TextScore, Item] = {}
        self._jobs: dict[Job, None] = {}  # those that have not ended
        self._stopped: list[Job] = []  # those whose work must end now
        self._draining = self._ended = False
        self._stories: Counter[str] = Counter()
        self._tokens = self._cancelled = 0
        self._story_seconds: deque[float] = deque(maxlen=RECENT_STORIES)
        self._scores: list[Item] = []  # running texts; only the thread uses them, and what follows
        self._fresh: dict[Job, None] = {}  # jobs with something to publish
        self._thread = threading.Thread(target=self._run, name=f"slmx-{generator.variant}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread of the model runs."""
        return self._thread.is_alive()

    def submit(
        self,
        stories: Sequence[Story],
        client: str,
        notify: Callable[[], None],
        whole: bool = False,
        texts: Sequence[Sequence[int]] = (),
        top_logprobs: int = 0,
    ) -> Job:
        """Queues the stories of a request and the texts that it scores, all or none.

        The updates of a text have the index of the text after those of the stories. A text has one update, whose `ids`,
        `logprobs` and `top_logprobs` have the same length: the log-probability of each id after the ids before it.

        Args:
            stories: New stories of `generator`. Only the scheduler may use them from now on.
            client: Who asks. Each client gets the same share of the slots.
            notify: Called in the thread of the model when there is something to take: at the first id of the job, then
                every 10 ms at most (27 ms with eight stories), and at its end. It must return soon.
            whole: Whether the client learns of the work only at the end of the job.
            texts: The ids of each text. They may begin with the token that begins every story, which has no
                log-probability.
            top_logprobs: The number of most likely ids to record at each position of a text.

        Raises:
            QueueFullError: There is no room for them now.
            StoppingError: `drain` was called.
            UsageError: There are no stories and no texts, or more than `most`.
            SlmxError: A text is refused, as in `Generator.encode`.
        """
        count = len(stories) + len(texts)
        if not 1 <= count <= self.most:
            raise UsageError(f"{count_stories(count)} in one request: ask for 1 to {self.most}")
        scores = [TextScore(self.generator.encode(ids), top_logprobs) for ids in texts]
        for story in stories:
            story.start()
        job = Job(client, [*stories, *scores], notify, self._cancel, whole)
        with self._condition:
            if self._draining:
                raise StoppingError
            waiting = len(self._queue)
            held = sum(len(other.unended) for other in self._jobs if other.client == client)
            if held + count > self.most or waiting + len(self._running) + count > self.slots + self.queue:
                seconds = median(self._story_seconds or [0.0]) * (waiting + count) / self.slots
                raise QueueFullError(waiting, min(max(seconds, LEAST_WAIT), MOST_WAIT))
            self._queue.add(job.unended)
            self._jobs[job] = None
            self._condition.notify_all()
        return job

    def _cancel(self, job: Job) -> None:
        with self._condition:
            if job in self._jobs and job not in self._stopped:
                self._cancelled += len(job.unended)
                self._stop(job)

    def _stop(self, job: Job) -> None:
        """Takes the waiting stories of a job out of the queue, and makes the thread end its work."""
        self._queue.remove(job.client, lambda item: item.job is job)
        self._stopped.append(job)
        self._condition.notify_all()

    def figures(self) -> SchedulerFigures:
        """Returns what the scheduler does now, and its totals."""
        batcher = self._batcher
        with self._condition:
            stories = [item.work for job in self._jobs for item in job.unended if isinstance(item.work, Story)]
            return SchedulerFigures(
                slots=self.slots,
                running=len(self._running),
                waiting=len(self._queue),
                prompt_tokens=batcher.prompt_tokens,
                reused_prompt_tokens=batcher.reused_tokens,
                tokens=self._tokens + sum(len(story.ids) for story in stories),
                steps=batcher.steps,
                stories=dict(self._stories),
                cancelled=self._cancelled,
                alive=self.alive,
            )

    def drain(self, grace: float) -> bool:
        """Takes no new stories, waits for those that run or wait, and ends the thread. It may be called twice.

        Args:
            grace: The most seconds to wait. Then the stories that have not ended are interrupted.

        Returns:
            Whether all stories ended in time.
        """
        with self._condition:
            self._draining = True
            self._condition.notify_all()
            in_time = self._condition.wait_for(lambda: self._ended, grace)
            if not in_time:
                for job in self._jobs:
                    self._stop(job)
        self._thread.join()
        return in_time

    def _run(self) -> None:
        try:
            while (self._running and not self._queue and not self._stopped) or self._start_waiting():
                try:
                    self._publish(self._batcher.step())
                except Exception as error:
                    log.error("the batch failed and begins anew", exc_info=error)
                    self._publish(self._begin_anew(error))
        finally:
            with self._condition:
                self._draining = self._ended = True
                self._condition.notify_all()
            self._batcher.reset()  # frees the memory of the caches

    def _start_waiting(self) -> bool:
        """Waits for work, ends the jobs that are stopped, and starts as many stories as there are free slots.

        Returns:
            False if there is no work and will be none.
        """
        with self._condition:
            while not (self._queue or self._running or self._stopped):
                if self._draining:
                    return False
                self._condition.wait()
            for job in self._stopped:
                self._interrupt(job)
            self._stopped.clear()
            while (self._batcher.free or self._make_room()) and (item := self._queue.take()) is not None:
                item.began = perf_counter()
                self._running[item.work] = item
                if isinstance(item.work, TextScore):
                    self._scores.append(item)
                if not item.ended:
                    self._batcher.add(item.work)
        return True

    def _make_room(self) -> bool:
        """Preempts a story of the client with the most running ones, if another client should have its slot.

        Returns:
            Whether there is room now.
        """
        queue, now = self._queue, perf_counter()
        fewest = queue.fewest()
        if fewest is None:
            return False
        written = [item for item in self._running.values() if item.is_written]
        if not written:
            return False
        item = max(written, key=lambda item: (queue.running(item.client), -item.began))
        ahead = queue.running(item.client) - fewest
        if ahead < 1 or (ahead == 1 and now - item.began < TURN_SECONDS):
            return False
        assert isinstance(item.work, Story)
        self._batcher.preempt(item.work)
        del self._running[item.work]
        item.ran += now - item.began
        queue.put_back(item)
        return True

    def _interrupt(self, job: Job) -> None:
        """Ends what has not ended of a job."""
        for item in list(job.unended):
            self._batcher.drop(item.work)
            if isinstance(item.work, Story):
                item.pieces.append(item.work.interrupt())
            else:
                item.work.error = StoppingError()
            self._end(item)

    def _publish(self, advanced: list[tuple[Story, str]]) -> None:
        """Publishes what is new after a step, and records which stories have ended."""
        running, fresh = self._running, self._fresh
        ended: dict[Item, None] = {}
        for story, piece in advanced:
            item = running[story]
            if piece:
                item.pieces.append(piece)
            item.job.fresh[item] = None
            fresh[item.job] = None
            if story.finish_reason is not None:
                ended[item] = None
        for item in self._scores:
            if item.ended:
                ended[item] = None
        if ended:
            with self._condition:
                for item in ended:
                    self._end(item)
        now = perf_counter()
        for job in list(fresh):
            if job.publish(now, len(running)):
                del fresh[job]

    def _begin_anew(self, error: Exception) -> list[tuple[Story, str]]:
        """Ends all that runs with an error that is not one of a single story, so that later stories can run."""
        self._batcher.reset()
        for item in self._scores:
            item.work.error = error
        return [(work, work.fail(error)) for work in self._running if isinstance(work, Story)]

    def _end(self, item: Item) -> None:
        """Records that a story or a text has ended."""
        job, work = item.job, item.work
        del job.unended[item]
        if not job.unended:
            del self._jobs[job]
        job.fresh[item] = None
        self._fresh[job] = None
        if self._running.pop(work, None) is not None:
            self._queue.ended(item)
            self._story_seconds.append(item.ran + perf_counter() - item.began)
        if isinstance(work, Story):
            self._tokens += len(work.ids)
            self._stories["error" if work.error is not None else str(work.finish_reason)] += 1
        else:
            self._scores = [other for other in self._scores if other is not item]
