"""Signals that end the command line, as exceptions where possible, and signals that stop a training after its step."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# A signal that the main thread has not handled after so many seconds found it inside a call of a library.
STUCK_SECONDS = 1.0


class Signals:
    """What the handlers of this process know.

    Attributes:
        number: The number of the signal that last ended the work with an exception; 0 if there was none.
        handled: When the main thread last handled a signal, by `time.monotonic`.
    """

    def __init__(self) -> None:
        self.number = 0
        self.handled = 0.0

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Handles SIGINT."""
        self.number, self.handled = number, time.monotonic()
        signal.default_int_handler(number, frame)

    def end(self, number: int, frame: FrameType | None) -> None:
        """Handles SIGTERM and SIGHUP."""
        self.number, self.handled = number, time.monotonic()
        raise SystemExit(128 + number)

    def watch(self, pipe: int) -> None:
        """Ends the process at a signal if the one before it is still not handled. Runs in a thread of its own.

        Python handles a signal between two of its own instructions, so a library call that does not return would make
        the process ignore every signal.

        Args:
            pipe: Where Python writes the number of each signal when it arrives.
        """
        before = math.inf
        while received := os.read(pipe, 1):
            number, now = received[0], time.monotonic()
            stuck = now - before > STUCK_SECONDS and self.handled < before - STUCK_SECONDS
            if stuck and signal.getsignal(number) in (self.end, self.interrupt):
                os._exit(128 + number)
            before = now
        os.close(pipe)


@contextmanager
def signals_exit() -> Iterator[None]:
    """Lets a signal end the process at once, with nothing to clean up. It is for imports.

    An import that an exception stops leaves modules half loaded, and some libraries suppress the exception.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _ending_numbers()}
    mine = [number for number, old in before.items() if _raises(old)]  # a shell ignores SIGINT in the background
    for number in mine:
        signal.signal(number, lambda number, _: os._exit(128 + number))
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, before[number])


def _raises(handler: object) -> bool:
    """Returns whether a handler of a signal raises an exception, and does nothing else."""
    return handler is signal.default_int_handler or isinstance(getattr(handler, "__self__", None), Signals)


def _ending_numbers() -> list[signal.Signals]:
    names = ("SIGTERM", "SIGHUP", "SIGINT")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]  # Windows has no SIGHUP


@contextmanager
def signals_end_as_exceptions() -> Iterator[Signals]:
    """Makes SIGTERM and SIGHUP end the process as an exception does, so that work folders are removed.

    A signal that is ignored or handled stays so: nohup ignores SIGHUP. A second signal ends a process that is stuck
    in a call of a library.
    """
    signals = Signals()
    defaults = {number: signal.getsignal(number) for number in _ending_numbers()}
    mine = [number for number, old in defaults.items() if old in (signal.SIG_DFL, signal.default_int_handler)]
    read, write = os.pipe()
    if hasattr(os, "set_blocking"):  # on Windows from Python 3.12
        os.set_blocking(write, False)
    woken = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    if hasattr(os, "register_at_fork"):  # a child's signals are not those of this process
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    threading.Thread(target=signals.watch, args=(read,), name="signals", daemon=True).start()
    for number in mine:
        signal.signal(number, signals.interrupt if number == signal.SIGINT else signals.end)
    try:
        yield signals
    finally:
        for number in mine:
            signal.signal(number, defaults[number])
        signal.set_wakeup_fd(woken)
        os.close(write)


class StopFlag:
    """Notes a signal that ends the process, so that the current step is always completed.

    Attributes:
        number: The number of the last signal; 0 if none arrived.
    """

    def __init__(self) -> None:
        self.number = 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal."""
        self.number = number

    @contextmanager
    def raised_by_signals(self) -> Iterator[None]:
        """Inside the block, Ctrl-C, SIGTERM and SIGHUP raise the flag. nohup ignores SIGHUP, and so does this then."""
        ignored = {number for number in _ending_numbers() if signal.getsignal(number) is signal.SIG_IGN}
        # A shell starts a program in the background with SIGINT ignored. A signal that is sent to it still stops it.
        numbers = [number for number in _ending_numbers() if number not in ignored or number.name != "SIGHUP"]
        before = [signal.signal(number, self.handle) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)
