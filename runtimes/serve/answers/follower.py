"""Follows the job of a request in the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import ClassVar
from weakref import WeakKeyDictionary, ref

from starlette.types import Receive

from runtimes.serve.protocol.errors import ClientGoneError, OutOfTimeError
from runtimes.serve.scheduler.job import Job, Update

HEARTBEAT_SECONDS = 5.0


class Waker:
    """Sets events of an event loop from another thread. It wakes the loop once for all that come together.

    Each time that a thread wakes a loop, the two compete for Python's lock, and the thread of the model loses time.

    Args:
        loop: The event loop.
    """

    _of: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, Waker]] = WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = ref(loop)  # the loop is the key under which `of` keeps this object
        self._events: deque[asyncio.Event] = deque()
        self._is_called = False

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Waker:
        """Returns the one of an event loop. Call it in the thread of the loop."""
        return cls._of.setdefault(loop, Waker(loop))

    def set(self, event: asyncio.Event) -> None:
        """Sets an event soon. It may be called in any thread."""
        self._events.append(event)
        loop = self._loop()
        if not self._is_called and loop is not None:
            self._is_called = True
            loop.call_soon_threadsafe(self._set_all)

    def _set_all(self) -> None:
        self._is_called = False  # first, so that an event that comes now is not forgotten
        while self._events:
            self._events.popleft().set()


class Follower:
    """Follows the job of a request until it ends, the client is gone or the time is over.

    It is a context manager, which closes it. The model stops the work of a cancelled job at its next step.

    Args:
        receive: The channel of the request, after its body was read.
        seconds: The most seconds to follow.

    Attributes:
        job: The job that is followed. The caller sets it; None if the request has no work for the model.
    """

    def __init__(self, receive: Receive, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self.job: Job | None = None
        self._seconds = seconds
        self._news = asyncio.Event()
        self._waker = Waker.of(loop)
        self._is_gone = self._is_late = False
        self._watch = loop.create_task(self._wait_until_gone(receive))
        self._timer = loop.call_later(seconds, self._be_late)

    def notify(self) -> None:
        """Tells that the job has something new. It may be called in any thread."""
        self._waker.set(self._news)

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops following, and cancels the job if it has not ended."""
        self._watch.cancel()
        self._timer.cancel()
        if self.job is not None and not self.job.done:
            self.job.cancel()

    async def _wait_until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._is_gone = True
        self._news.set()

    def _be_late(self) -> None:
        self._is_late = True
        self._news.set()

    async def updates(self) -> AsyncIterator[list[Update]]:
        """Yields what is new, and an empty list if nothing comes for 5 seconds.

        Raises:
            ClientGoneError: The client closed its connection.
            OutOfTimeError: The time is over.
        """
        while self.job is not None and not self.job.done:
            try:
                await asyncio.wait_for(self._news.wait(), HEARTBEAT_SECONDS)
            except asyncio.TimeoutError:
                yield []
                continue
            self._news.clear()
            if self._is_gone:
                raise ClientGoneError("the client is gone")
            if found := self.job.take():
                yield found
            if self._is_late and not self.job.done:
                raise OutOfTimeError(self._seconds)
