"""Whether what a process uses grows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from slm.console.notice import Log
from tests.reliability.outcome import Outcome
from tests.reliability.slope import slope_of

MEGABYTE = 1e6
MOST_SHOWN = 20  # readings in the record


class Reading(NamedTuple):
    """What a process uses.

    Attributes:
        place: When it was read: the seconds, or the number of stories so far.
        memory: Its resident bytes.
        files: Its open files.
        threads: Its threads.
    """

    place: float
    memory: int
    files: int
    threads: int


def check_growth(outcome: Outcome, readings: Sequence[Reading], start: float, most: float, unit: str, log: Log) -> None:
    """Adds a failure to an outcome for each growth, and what was read to its figures.

    A growth is that of a line through the readings, from the first that counts to the last. It fails if the lower
    end of its 95 % interval is above what is allowed.

    Args:
        outcome: The outcome.
        readings: The readings in order.
        start: The place from which on readings count. Caches fill before.
        most: The bytes of memory by which the process may grow. Files and threads may grow by less than one.
        unit: What places count, such as "s".
        log: Gets a line about the memory.
    """
    counted = [reading for reading in readings if reading.place >= start]
    places = [reading.place for reading in counted]
    length = places[-1] - places[0]
    for what, values, limit in (
        ("memory", [reading.memory for reading in counted], most),
        ("open files", [reading.files for reading in counted], 1.0),
        ("threads", [reading.threads for reading in counted], 1.0),
    ):
        value, low, high = (length * end for end in slope_of(places, values))
        outcome.figures[f"growth of {what}, with its interval"] = [round(value, 3), round(low, 3), round(high, 3)]
        if low > limit:
            outcome.failures.append(
                f"{what}: {value:+,.0f} ({low:+,.0f} to {high:+,.0f}) in {length:,.0f} {unit}, allowed: {limit:,.0f}"
            )
        if what == "memory":
            around = f"{low / MEGABYTE:+.2f} to {high / MEGABYTE:+.2f}"
            log(f"memory: {value / MEGABYTE:+.2f} MB ({around}) in {length:,.0f} {unit}, after {places[0]:,.0f} {unit}")
    step = max(1, len(readings) // MOST_SHOWN)
    outcome.figures[f"resident bytes at {unit}"] = [[round(each.place, 1), each.memory] for each in readings[::step]]
    outcome.figures["counted from"] = round(places[0], 1)
