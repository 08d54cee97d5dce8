"""Warnings about other processes: their text, and the share of the cores in it.

The share decides whether a warning can change the conclusion of a report.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from benchmarks.report.leaderboard import Setting

STOPPED = "stopped before all cases were measured"
BEFORE = "before the run other processes used"
_SHARE = re.compile(r"other processes used (?:up to )?(\d{1,3})% of the cores")


def busy_before(share: float) -> str:
    """Returns the warning that other processes used a share of the cores before the run."""
    return f"{BEFORE} {share:.0%} of the cores"


def busy_during(preset: str, setting: Setting, busy: Sequence[tuple[int, float]]) -> str:
    """Returns the warning that other processes disturbed rounds.

    Args:
        preset: The name of the model.
        setting: The setting of the cases.
        busy: The numbers of the rounds, each with the share of the cores that others used.
    """
    rounds = _ranges([number for number, _ in busy])
    most = max(share for _, share in busy)
    where = f"round{'s' * (len(busy) > 1)} {rounds}"
    return f"{preset}, {setting}: other processes used up to {most:.0%} of the cores in {where}"


def _ranges(numbers: Sequence[int]) -> str:
    """Returns ascending numbers as text, such as "1-4, 7"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)


def busy_share(warning: str) -> float | None:
    """Returns the share of the cores that a warning says others used; None if it is about something else."""
    found = _SHARE.search(warning)
    return None if found is None else int(found[1]) / 100
