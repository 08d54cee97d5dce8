"""Ways to run a bundle, and measurements of them."""

from __future__ import annotations

from runtimes.checks.doctor import Way
from runtimes.system.timing import Samples

INT8, TWO, Q8, INT4 = Way("int8", 1), Way("int8", 2), Way("q8", 1), Way("int4", 1)


def seconds(median: float, spread: float = 0.0) -> Samples:
    """Returns five samples around a median, as far apart as `spread`, a share of it."""
    return Samples([median * (1 + share * spread) for share in (-1.5, -1, 0, 1, 1.5)])
