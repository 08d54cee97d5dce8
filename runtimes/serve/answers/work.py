"""The work of a request: reads its body, queues its stories and scores, and checks what comes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.requests import Request

from runtimes.engine.story import Story
from runtimes.requests.errors import RequestError
from runtimes.requests.stories import Begun
from runtimes.requests.story_request import StoryRequest
from runtimes.serve.answers.follower import Follower
from runtimes.serve.answers.logprobs import Scored, TokenTexts, scored
from runtimes.serve.protocol.errors import ModelError
from runtimes.serve.scheduler.errors import StoppingError
from runtimes.serve.scheduler.job import Update
from runtimes.serve.scheduler.scheduler import Scheduler
from slm.storage.json_reader import parse_json

LARGE_BODY = 2**16  # bytes; a larger body is parsed outside the event loop
LARGE_WORK = 4000  # characters or ids of all prompts; more are encoded outside the event loop
MANY_STORIES = 16
_T = TypeVar("_T")


async def read_body(request: Request) -> object:
    """Returns the JSON value of a request.

    Raises:
        RequestError: The body is not JSON, its Content-Type is not JSON, or it is compressed.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestError(
            "the body must be JSON: send it with the header Content-Type: application/json",
            code="unsupported_media_type",
            status=415,
        )
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise RequestError(
            "the body must not be compressed: send it without the header Content-Encoding",
            code="unsupported_media_type",
            status=415,
        )
    body = await request.body()
    try:
        return await in_thread_if(len(body) > LARGE_BODY, parse_json, body)
    except ValueError as error:
        raise RequestError(f"the body is not JSON that can be read: {error}", code="invalid_json") from None


async def in_thread_if(is_long: bool, function: Callable[..., _T], *args: object) -> _T:
    """Calls a function, in another thread if it takes long, so that the event loop never waits for it."""
    return await asyncio.to_thread(function, *args) if is_long else function(*args)


def is_long(asked: StoryRequest, sizes: Sequence[int]) -> bool:
    """Returns whether it takes long to begin the stories of a request with prompts of these sizes."""
    many = len(sizes) * asked.n > MANY_STORIES or sum(sizes) * asked.n > LARGE_WORK
    return many or bool(asked.sampling.rules.ban_words)


@dataclass
class Work:
    """A request that is being served.

    Attributes:
        asked: The request.
        model: The name of its model.
        scheduler: The scheduler of its model.
        begun: Its prompts and stories.
        scores_prompts: Whether the log-probabilities of its prompts are needed.
        score_only: Whether nothing is written.
        scores: The scored tokens of each prompt, as they come.
        texts: Shows tokens.
    """

    asked: StoryRequest
    model: str
    scheduler: Scheduler
    begun: Begun
    scores_prompts: bool = False
    score_only: bool = False
    scores: dict[int, list[Scored]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.texts = TokenTexts(self.scheduler.generator.tokenizer)

    @property
    def stories(self) -> list[Story]:
        """The stories that are written."""
        return [] if self.score_only else self.begun.stories

    def is_score(self, update: Update) -> bool:
        """Returns whether an update is the score of a prompt. The stories are before the prompts in the job."""
        return update.index >= len(self.stories)

    def submit(self, follower: Follower, client: str) -> None:
        """Queues the stories and the scores, all or none.

        Raises:
            RequestError: They are more than the server takes at once.
            QueueFullError: There is no room for them now.
            StoppingError: The server is stopping.
        """
        stories, prompts = self.stories, self.begun.prompt_ids if self.scores_prompts else []
        count, most = len(stories) + len(prompts), self.scheduler.most
        if count > most:
            raise RequestError(f"{count} stories and scores in one request: ask for {most} or fewer", "n")
        if count:
            whole, top = not self.asked.stream, self.asked.config.top_logprobs
            follower.job = self.scheduler.submit(stories, client, follower.notify, whole, prompts, top)

    def record(self, update: Update) -> None:
        """Checks an update, and keeps the score of a prompt.

        Raises:
            ModelError: An error ended the story.
            StoppingError: The server stopped before the story began, or before the whole prompt was scored.
        """
        if isinstance(update.error, StoppingError):
            raise update.error
        if update.error is not None:
            raise ModelError(str(update.error))
        if self.is_score(update):
            self.scores[update.index - len(self.stories)] = scored(update.ids, update.logprobs, update.top_logprobs)
            return
        story = update.completion
        if story is not None and story.stats.finish_reason == "interrupted" and not story.ids:
            raise StoppingError
