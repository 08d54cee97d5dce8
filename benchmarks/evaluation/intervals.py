"""Intervals of confidence for figures on a text, in which the words of one story depend on each other."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

LEVEL = 0.95
POWER = 0.8  # the chance with which a difference of `smallest_difference` would have been found
LARGEST = 700.0  # nats; e to a little more is no longer a float
FEWEST = 2  # clusters, without which there is no interval


@dataclass(frozen=True)
class Estimate:
    """A figure and its interval.

    Attributes:
        value: The figure.
        low: The lower end of the interval; NaN if it is unknown.
        high: The upper end.
        error: The standard error; NaN if it is unknown.
        clusters: The number of stories that it comes from, or of independent trials.
    """

    value: float
    low: float
    high: float
    error: float
    clusters: int

    def scaled(self, factor: float) -> Estimate:
        """Returns the same figure in another unit. The factor is positive."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor, self.error * factor, self.clusters)

    @property
    def contains_zero(self) -> bool:
        """Whether the figure cannot be told from 0."""
        return not (self.low > 0 or self.high < 0)

    @property
    def smallest_difference(self) -> float:
        """The smallest difference from 0 that would be found with a chance of 80 % (normal distribution)."""
        normal = NormalDist()
        return (normal.inv_cdf(0.5 + LEVEL / 2) + normal.inv_cdf(POWER)) * self.error

    def exponential(self) -> dict[str, float | None]:
        """Returns the perplexity of nats for JSON. Its interval is that of the nats, and so not symmetric."""
        ends = {"value": self.value, "low": self.low, "high": self.high}
        return {name: math.exp(min(end, LARGEST)) if math.isfinite(end) else None for name, end in ends.items()}

    def to_json(self) -> dict[str, float | int | None]:
        """Returns the fields for JSON, which has no NaN."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


def student(freedom: int) -> float:
    """Returns t such that Student's t distribution has the probability `LEVEL` between -t and t.

    Args:
        freedom: Degrees of freedom, at least 1.

    The expansion of Cornish and Fisher (Abramowitz and Stegun, 26.7.5) has an error below 0.5 % from 4 degrees on. For
    fewer degrees the exact values are used.
    """
    exact = {1: 12.7062, 2: 4.3027, 3: 3.1824}
    if freedom in exact:
        return exact[freedom]
    z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / freedom**power for power, term in enumerate(terms, 1))


def ratio(parts: FloatArray, sizes: FloatArray) -> Estimate:
    """Estimates a ratio of totals, such as nats per token, with an interval that is clustered by story.

    The error is that of the ratio estimator with clusters of unequal sizes (Cochran, Sampling Techniques, 1977, 6.4).

    Args:
        parts: The total of each story, such as nats [stories].
        sizes: The size of each story, such as tokens [stories]. Stories of size 0 are left out.
    """
    kept = sizes > 0
    parts, sizes = parts[kept].astype(np.float64), sizes[kept].astype(np.float64)
    count, total = len(sizes), float(sizes.sum())
    if not count:
        return Estimate(math.nan, math.nan, math.nan, math.nan, 0)
    value = float(parts.sum()) / total
    if count < FEWEST:
        return Estimate(value, math.nan, math.nan, math.nan, count)
    rest = parts - value * sizes
    error = math.sqrt(count / (count - 1) * float(rest @ rest)) / total
    width = student(count - 1) * error
    return Estimate(value, value - width, value + width, error, count)


def mean(values: FloatArray) -> Estimate:
    """Estimates a mean over independent values [n], such as one figure of each story."""
    return ratio(values, np.ones(len(values)))


def share(hits: int, trials: int) -> Estimate:
    """Estimates a share of independent trials, with Wilson's interval (Wilson, 1927). It is good near 0 and 1 too."""
    if not trials:
        return Estimate(math.nan, math.nan, math.nan, math.nan, 0)
    z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
    value = hits / trials
    middle = (value + z * z / (2 * trials)) / (1 + z * z / trials)
    width = z / (1 + z * z / trials) * math.sqrt(value * (1 - value) / trials + z * z / (4 * trials * trials))
    return Estimate(value, max(0.0, middle - width), min(1.0, middle + width), width / z, trials)
