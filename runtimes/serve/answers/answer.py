"""Follows the work of a request and answers in one piece or in events."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from runtimes.requests.errors import RequestError
from runtimes.serve.answers.events import DONE, WAITING, EventStream, event
from runtimes.serve.answers.follower import HEARTBEAT_SECONDS, Follower
from runtimes.serve.answers.state import client_of, state_of
from runtimes.serve.answers.work import Work
from runtimes.serve.protocol.errors import ClientGoneError, describe, error_body
from runtimes.serve.scheduler.job import Update
from runtimes.serve.scheduler.scheduler import Scheduler
from runtimes.types import Completion
from slm.console.errors import SlmxError

FINGERPRINT_DIGITS = 16
FINISH_REASONS = {"stop": "stop", "length": "length", "exhausted": "stop", "interrupted": "length"}
Choice = dict[str, Any]


class Form(Protocol):
    """The shape of the answers of one endpoint.

    Attributes:
        prefix: The beginning of an id.
        name: The `object` of an answer.
        event_name: The `object` of an event.
        extra: Fields that an answer has in addition. A stream has them in its first event.
    """

    prefix: str
    name: str
    event_name: str
    extra: Choice

    def choice(self, update: Update, end: Choice) -> Choice | None:
        """Returns a choice, or the next part of one in an event.

        Args:
            update: What is new in its story.
            end: Why the story ended, as `ending` returns it.

        Returns:
            The choice; None if there is nothing to tell.
        """


class Answer:
    """Answers a request in one shape. `request.state.tokens` is the number of tokens that were written.

    `request.state.outcome` is the code of the error that ended a stream, whose status was sent before.
    """

    def __init__(self, request: Request, work: Work, form: Form) -> None:
        self._request = request
        self._written = 0
        self._work = work
        self._form = form
        self._completions: dict[int, Completion] = {}
        self._head = {
            "id": form.prefix + secrets.token_hex(12),
            "object": form.event_name if work.asked.stream else form.name,
            "created": int(time.time()),
            "model": work.model,
            "system_fingerprint": fingerprint(work.scheduler),
            "seed": work.begun.seed,
        }

    async def whole(self, follower: Follower) -> Response:
        """Waits for all stories and returns the answer."""
        async for updates in follower.updates():
            for update in updates:
                self._record(update)
        if self._work.score_only:
            choices = self._only_scored()
        else:
            stories = [self._completions[index] for index in range(len(self._completions))]
            choices = [self._form.choice(_as_update(*story), ending(story[1])) for story in enumerate(stories)]
        return JSONResponse({**self._head, **self._form.extra, "choices": choices, "usage": self._usage()})

    async def events(self, follower: Follower) -> AsyncGenerator[bytes, None]:
        """Yields the events of the answer. An error is an event too."""
        try:
            async for part in self._events(follower):
                yield part
        except ClientGoneError:
            self._request.state.outcome = "client_gone"
            return
        except SlmxError as error:
            _, type_, code, _ = describe(error)
            self._request.state.outcome = code
            yield event(error_body(str(error), type_, None, code))
        yield DONE

    async def _events(self, follower: Follower) -> AsyncGenerator[bytes, None]:
        work, held, sent = self._work, list[Update](), time.monotonic()
        rest = {"usage": None} if work.asked.include_usage else {}
        head = {**self._head, **self._form.extra}
        async for updates in follower.updates():
            for update in updates:
                self._record(update)
                if not work.is_score(update):
                    held.append(update)
            parts: list[Choice | None] = []
            if not work.scores_prompts or len(work.scores) == len(work.begun.prompt_ids):
                parts = [self._form.choice(update, ending(update.completion)) for update in held]
                held.clear()  # a choice begins with the score of its prompt, so before that all are held
            found = b""
            for part in parts:
                if part is not None:
                    found += event({**head, "choices": [part], **rest})
                    head = self._head
            if found or not updates or time.monotonic() > sent + HEARTBEAT_SECONDS:
                yield found or WAITING
                sent = time.monotonic()
        if work.score_only:
            for choice in self._only_scored():
                yield event({**head, "choices": [choice], **rest})
        if work.asked.include_usage:
            yield event({**self._head, "choices": [], "usage": self._usage()})

    def _record(self, update: Update) -> None:
        self._work.record(update)
        if not self._work.is_score(update):
            self._written += len(update.ids)
            self._request.state.tokens = self._written
        if update.completion is not None:
            self._completions[update.index] = update.completion

    def _only_scored(self) -> list[Choice | None]:
        """Returns the choices of prompts that are not continued."""
        prompts = range(len(self._work.begun.prompt_ids))
        return [self._form.choice(Update(index, "", [], [], []), ONLY_SCORED) for index in prompts]

    def _usage(self) -> dict[str, Any]:
        """Returns the counts of tokens. A prompt counts once, however many stories it has."""
        begun, completions = self._work.begun, self._completions
        prompt = sum(map(len, begun.prompt_ids))
        firsts = [completions[index] for index in range(0, len(completions), self._work.asked.n)]
        cached = sum(completion.stats.reused_prompt_tokens for completion in firsts)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self._written,
            "total_tokens": prompt + self._written,
            "prompt_tokens_details": {"cached_tokens": cached},
        }


def fingerprint(scheduler: Scheduler) -> str:
    """Returns what identifies the model: a part of the hash of its bundle's manifest."""
    return f"slmx-{scheduler.generator.bundle.manifest_sha256[:FINGERPRINT_DIGITS]}"


def _as_update(index: int, story: Completion) -> Update:
    """Returns a whole story as its only update."""
    return Update(index, story.completion_text, story.ids, story.logprobs, story.top_logprobs, story)


def ending(story: Completion | None) -> Choice:
    """Returns why a story ended: OpenAI's reason, slmx's exact reason, and the stop string. None has not ended."""
    if story is None:
        return {"finish_reason": None, "finish_detail": None, "stop_reason": None}
    stats = story.stats
    reason = FINISH_REASONS[stats.finish_reason]
    return {"finish_reason": reason, "finish_detail": stats.stop, "stop_reason": stats.stop_string}


ONLY_SCORED = {"finish_reason": "length", "finish_detail": "max tokens", "stop_reason": None}


async def answer_request(request: Request, work: Work, form: Form) -> Response:
    """Queues the work of a request and answers it.

    Raises:
        RequestError: A stream is asked for over HTTP/1.0.
        SlmxError: As in `Work.submit`; also as in `Follower.updates` and `Work.record`, if the answer is no stream.
    """
    if work.asked.stream and request.scope["http_version"] == "1.0":  # it has no chunks (RFC 9112, section 6.1)
        raise RequestError("stream needs HTTP/1.1: leave it out, or set your client or proxy to HTTP/1.1", "stream")
    answer = Answer(request, work, form)
    follower = Follower(request.receive, state_of(request).request_seconds)
    try:
        work.submit(follower, client_of(request))
    except SlmxError:
        follower.close()
        raise
    if work.asked.stream:
        return EventStream(follower, answer.events(follower))
    with follower:
        return await answer.whole(follower)
