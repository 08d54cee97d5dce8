"""What a check of a promise returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from slm.console.notice import Log


@dataclass
class Outcome:
    """What was tried, and what failed.

    Attributes:
        tried: The number of trials.
        unit: What a trial is, in the plural, such as "changed files".
        failures: A line for each trial in which the promise did not hold; it says how to try it again.
        figures: What else was measured, for the JSON file.
    """

    tried: int
    unit: str
    failures: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """A promise and the function that tries it.

    Attributes:
        promise: What holds, in one sentence.
        run: Tries it. Its arguments are whether the short form is wanted, and a function for progress lines.
        needs: A program that it needs, such as "strace"; "" for none.
        in_short_form: Whether `--quick` without its whole name runs it.
    """

    promise: str
    run: Callable[[bool, Log], Outcome]
    needs: str = ""
    in_short_form: bool = True
