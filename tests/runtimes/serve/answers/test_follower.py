"""The event loop is woken once for all that comes together, and nothing is forgotten."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from runtimes.serve.answers.follower import Waker


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
