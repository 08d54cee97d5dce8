"""Ctrl-C and SIGTERM end a process that is inside a call of a library, or in the middle of its imports."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytestmark = pytest.mark.slow

# A lock that is taken twice never returns. Python runs no handler of a signal while it waits in the C library.
STUCK = """
import ctypes
from slm.console.signals import signals_end_as_exceptions
with signals_end_as_exceptions():
    print("begins", flush=True)
    lock = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(lock)
"""
HANDLED = """
import time
from slm.console.signals import signals_end_as_exceptions
with signals_end_as_exceptions():
    for _ in range(3):
        try:
            print("waits", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            pass
print("ends")
"""
IMPORTING = """
import signal
from slm.console.errors import needs
from slm.console.signals import signals_end_as_exceptions
signal.signal(signal.SIGHUP, signal.SIG_DFL)
with signals_end_as_exceptions(), needs("export"):
    print("imports", flush=True)
    try:
        import time
        time.sleep(60)
    except BaseException:
        print("suppressed", flush=True)
"""
# A command whose import turns every exception into an ImportError, as the C++ part of onnxruntime does.
FAILING = """
import signal, time
from slm import cli

def load() -> None:
    print("imports", flush=True)
    try:
        time.sleep(60)
    except BaseException as error:
        raise ImportError("initialization failed") from error

cli.COMMANDS["load"] = ("__main__", "load")
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup, under which the tests may run, ignores it
import sys
sys.argv = ["slmx", "load"]
cli.main()
"""
ENDING = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT]


@contextmanager
def started(code: str, first: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has printed its first line; it is killed at the end."""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{first}\n"
            yield process
        finally:
            process.kill()


@pytest.mark.heavy
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_second_signal_ends_a_process_that_is_stuck(number: signal.Signals) -> None:
    with started(STUCK, "begins") as process:
        time.sleep(1)  # until the process waits for the lock
        process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        process.send_signal(number)
        assert process.wait(10) == 128 + number


def test_signals_that_are_handled_end_nothing_early() -> None:
    with started(HANDLED, "waits") as process:
        assert process.stdout is not None
        for _ in range(2):
            time.sleep(1.2)
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "waits\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=10)[0] == "ends\n"
        assert process.returncode == 0


@pytest.mark.parametrize("number", ENDING, ids=lambda number: number.name)
def test_a_signal_during_imports_ends_at_once_and_says_nothing(number: signal.Signals) -> None:
    with started(IMPORTING, "imports") as process:
        process.send_signal(number)
        assert process.communicate(timeout=10) == ("", "")
        assert process.returncode == 128 + number


@pytest.mark.parametrize("number", ENDING, ids=lambda number: number.name)
def test_an_import_that_fails_because_of_a_signal_says_nothing(number: signal.Signals) -> None:
    with started(FAILING, "imports") as process:
        process.send_signal(number)
        assert process.communicate(timeout=10) == ("", "")
        assert process.returncode == 128 + number
