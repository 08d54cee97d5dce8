"""The event loop is woken once for all that comes together, nothing is lost, and 5 seconds of silence are reported."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from runtimes.serve.answers import follower
from runtimes.serve.answers.follower import Follower, Waker
from runtimes.serve.scheduler.job import Job, Update


def set_all(waker: Waker, events: Sequence[asyncio.Event]) -> None:
    for event in events:
        waker.set(event)


def test_events_of_one_moment_wake_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> int:
        loop, calls = asyncio.get_running_loop(), []
        call = loop.call_soon_threadsafe

        def counted(callback: Callable[..., object], *args: object) -> asyncio.Handle:
            calls.append(callback)
            return call(callback, *args)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        waker, events = Waker.of(loop), [asyncio.Event() for _ in range(8)]
        assert Waker.of(loop) is waker
        thread = threading.Thread(target=set_all, args=(waker, events))
        thread.start()
        thread.join()
        for event in events:
            await asyncio.wait_for(event.wait(), 10)
        return len(calls)

    assert asyncio.run(main()) == 1


def test_no_event_is_forgotten_while_the_loop_runs() -> None:
    async def main() -> None:
        waker = Waker.of(asyncio.get_running_loop())
        events = [asyncio.Event() for _ in range(5000)]
        thread = threading.Thread(target=set_all, args=(waker, events))
        thread.start()
        for event in events:
            await asyncio.wait_for(event.wait(), 10)
        thread.join()

    asyncio.run(main())


class SetAside(Job):
    """A job that has written something and then waits for its turn."""

    def __init__(self) -> None:
        super().__init__("client", [], lambda: None, lambda job: None)
        self._updates.append(Update(0, "Once", [1], [], []))


def test_a_story_that_is_preempted_is_told_to_wait_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "HEARTBEAT_SECONDS", 0.01)

    async def forever() -> dict[str, str]:
        await asyncio.sleep(3600)
        return {"type": "http.disconnect"}

    async def main() -> list[list[str]]:
        found: list[list[str]] = []
        with Follower(forever, 60.0) as follows:
            follows.job = SetAside()
            follows.notify()
            async for updates in follows.updates():
                found.append([update.text for update in updates])
                if len(found) == 3:
                    break
        return found

    assert asyncio.run(asyncio.wait_for(main(), 20)) == [["Once"], [], []]
