"""Signals that end the command line: as exceptions where possible, so that work folders are removed."""

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
        interrupted: Whether Ctrl-C was pressed.
        handled: When the main thread last handled a signal, by `time.monotonic`.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self.handled = 0.0

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """The handler of SIGINT."""
        self.interrupted, self.handled = True, time.monotonic()
        signal.default_int_handler(number, frame)

    def end(self, number: int, frame: FrameType | None) -> None:
        """The handler of SIGTERM and SIGHUP."""
        self.handled = time.monotonic()
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
def interrupt_exits() -> Iterator[None]:
    """Within it, Ctrl-C ends the process at once, with nothing to clean up: for imports.

    An import that an exception stops leaves modules half loaded, and some libraries suppress the exception.
    """
    elsewhere = threading.current_thread() is not threading.main_thread()
    if elsewhere or signal.getsignal(signal.SIGINT) in (None, signal.SIG_IGN):  # ignored in the background of a shell
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def signals_end_as_exceptions() -> Iterator[Signals]:
    """Within it, SIGTERM and SIGHUP end the process as an exception does, so that work folders are removed.

    A signal that is ignored or handled stays so: nohup ignores SIGHUP. A second signal ends a process that is stuck
    in a call of a library.
    """
    signals = Signals()
    handlers = {"SIGTERM": signals.end, "SIGHUP": signals.end, "SIGINT": signals.interrupt}
    numbers = {getattr(signal, name): handler for name, handler in handlers.items() if hasattr(signal, name)}
    defaults = {number: signal.getsignal(number) for number in numbers}
    mine = [number for number, old in defaults.items() if old in (signal.SIG_DFL, signal.default_int_handler)]
    read, write = os.pipe()
    os.set_blocking(write, False)
    woken = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    if hasattr(os, "register_at_fork"):  # a child's signals are not those of this process
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    threading.Thread(target=signals.watch, args=(read,), name="signals", daemon=True).start()
    for number in mine:
        signal.signal(number, numbers[number])
    try:
        yield signals
    finally:
        for number in mine:
            signal.signal(number, defaults[number])
        signal.set_wakeup_fd(woken)
        os.close(write)
