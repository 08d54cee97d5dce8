"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 20.0  # seconds after which a test gives up


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Waits until something is true; fails if it takes too long.

    Args:
        condition: What must become true. It is asked every 5 milliseconds.
        seconds: After how many seconds it fails.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"nothing happened in {seconds:g} s"
        time.sleep(0.005)
