"""Ctrl-C in the middle of a story."""

from __future__ import annotations

import pytest


def interrupt_after(count: int, owner: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets `owner.step` work `count` times, and then raise KeyboardInterrupt, as at Ctrl-C."""
    step, left = owner.step, iter(range(count))  # type: ignore[attr-defined]  # every owner has a step

    def interrupted(*arguments: object) -> object:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(owner, "step", interrupted)
