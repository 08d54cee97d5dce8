"""The stories and scored texts of one request, and what a client learns of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from runtimes.engine.scoring import TextScore
from runtimes.engine.story import Story
from runtimes.types import Completion
from slm.console.errors import SlmxError

NOTIFY_SECONDS = 0.01  # the least time between two updates of a job
MOST_UPDATES = 300  # in a second, of all jobs together: each takes time from the model


@dataclass(frozen=True, slots=True)
class Update:
    """What is new in one story or one scored text.

    Attributes:
        index: The place of the story or the text in its job.
        text: The new text.
        ids: The new ids. The text of the last ones may follow in a later update.
        logprobs: Their log-probabilities, if they were asked for.
        top_logprobs: The most likely ids at their positions, if they were asked for.
        completion: The whole story if this is its last update, or else None. None for a text that was scored.
        error: The reason if an error ended the story, in one line.
    """

    index: int
    text: str
    ids: list[int]
    logprobs: list[float]
    top_logprobs: list[dict[int, float]]
    completion: Completion | None = None
    error: SlmxError | None = None


@dataclass(slots=True, eq=False)
class Item:
    """One story or one text of a job. Only the thread of the model changes it."""

    job: Job
    index: int
    work: Story | TextScore
    pieces: list[str] = field(default_factory=list)  # text that is not part of an update
    sent: int = 0  # ids that are part of an update
    began: float = 0.0  # when it began to run, or went on
    ran: float = 0.0  # seconds for which it ran before

    @property
    def client(self) -> str:
        """The client that asked for it."""
        return self.job.client

    @property
    def ended(self) -> bool:
        """Whether no more follows."""
        return self.work.done if isinstance(self.work, TextScore) else self.work.finish_reason is not None

    @property
    def is_written(self) -> bool:
        """Whether it is a story with ids, all of them read. Such a story can be preempted."""
        return isinstance(self.work, Story) and bool(self.work.ids) and self.work.window is None

    def update(self) -> Update:
        """Returns what is new since the last update."""
        work, sent = self.work, self.sent
        error = None if work.error is None else _foreseen(work.error)
        if isinstance(work, TextScore):
            return Update(self.index, "", work.ids[1:], work.logprobs, work.top_logprobs, None, error)
        text = "".join(self.pieces)
        self.pieces.clear()
        self.sent = len(work.ids)
        completion = None if work.finish_reason is None else work.completion()
        logprobs, top = work.logprobs[sent:], work.top_logprobs[sent:]
        return Update(self.index, text, work.ids[sent:], logprobs, top, completion, error)


def _foreseen(error: Exception) -> SlmxError:
    """Returns the error itself, or one line about an error that nothing foresaw."""
    return error if isinstance(error, SlmxError) else SlmxError(f"internal error ({type(error).__name__}): {error}")


class Job:
    """The work of one request: its stories, then its texts to score.

    `take`, `cancel` and `done` are for the client, in any one thread.

    Args:
        client: Whose it is.
        works: The stories, then the texts to score.
        notify: Called in the thread of the model when there is something to take.
        cancel: Stops the work of a job.
        whole: Whether nothing is published before all its work has ended.
    """

    def __init__(
        self,
        client: str,
        works: Sequence[Story | TextScore],
        notify: Callable[[], None],
        cancel: Callable[[Job], None],
        whole: bool = False,
    ) -> None:
        self.client = client
        self._whole = whole
        # Only the thread of the model changes these.
        self.unended = dict.fromkeys(Item(self, index, work) for index, work in enumerate(works))
        self.fresh: dict[Item, None] = {}  # items with something that is not part of an update
        self._due = 0.0  # when the client may be notified again
        self._ended = False
        self._updates: deque[Update] = deque()
        self._notify = notify
        self._cancel = cancel

    @property
    def done(self) -> bool:
        """Whether all its work has ended and every update was taken."""
        return self._ended and not self._updates

    def take(self) -> list[Update]:
        """Takes the updates since the last call. There may be several of one story, in order."""
        found = []
        while self._updates:
            found.append(self._updates.popleft())
        return found

    def cancel(self) -> None:
        """Stops the work at the next step. The stories end as interrupted. It may be called at any time."""
        self._cancel(self)

    def publish(self, now: float, running: int) -> bool:
        """Makes updates of what is new and notifies the client, unless more will follow and it need not know yet.

        Only the thread of the model calls it. If `notify` fails, the client is gone and the job is cancelled.

        Args:
            now: The current time in seconds.
            running: How many stories run.

        Returns:
            Whether everything is published.
        """
        if self.unended and (self._whole or now < self._due):
            return False
        self._due = now + max(NOTIFY_SECONDS, running / MOST_UPDATES)
        self._updates.extend([item.update() for item in self.fresh])
        self.fresh.clear()
        self._ended = not self.unended
        try:
            self._notify()
        except Exception:
            self.cancel()
        return True
