"""The search for the id that a number draws, compared with a full sort of all logits."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runtimes.engine.arrays import FloatArray
from runtimes.engine.sampler import FIRST_LOOK, GROUPS, HIGHEST, LOWEST, GroupMaxima, Sampler
from runtimes.types import SamplingParams

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.integers(1, 40) | st.integers(1, 2500) | st.sampled_from([FIRST_LOOK, GROUPS, 2 * GROUPS, 2 * GROUPS + 1])
BELOW_ONE = math.nextafter(1.0, 0.0)


class FullSort:
    """The ids that the rules keep, by a full sort, and the cumulative probabilities that are drawn from."""

    def __init__(self, sampling: SamplingParams, logits: FloatArray) -> None:
        temperature, top_k, top_p, min_p = sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p
        weights = np.exp((logits - logits.max()).astype(np.float64) / temperature)
        if not top_k and top_p == 1.0 and not min_p:
            self.ids, self.masses = list(range(len(logits))), weights.cumsum().tolist()
            return
        ids = np.argsort(-logits, kind="stable")[: top_k or len(logits)].tolist()
        ranked = [float(logits[i]) for i in ids]
        masses = list(accumulate(math.exp((value - ranked[0]) / temperature) for value in ranked))
        kept = len(ids)
        self.total = masses[-1] if top_k else float(weights.sum())
        if top_p < 1.0:
            kept = min(kept, bisect_left(masses, top_p * self.total) + 1)
        if min_p:
            least = ranked[0] + temperature * math.log(min_p)
            if not top_k and top_p == 1.0:
                least = float(np.float32(least))
            kept = min(kept, sum(value >= least for value in ranked))
        self.ids, self.masses = ids[:kept], masses[:kept]

    def choice(self, share: float) -> int:
        """The id that a number from 0 to 1 draws."""
        return self.ids[bisect_right(self.masses, share * self.masses[-1], 0, len(self.masses) - 1)]

    def borders(self, rng: np.random.Generator) -> Iterator[float]:
        """Numbers that draw an id or its neighbour, because they are as near to the border as numbers can be."""
        for mass in (*rng.choice(self.masses[:4], 2), *rng.choice(self.masses, 2)):
            share = float(mass) / self.masses[-1]
            yield from (min(max(0.0, math.nextafter(share, towards)), BELOW_ONE) for towards in (0.0, share, 2.0))


def border_top_p(sampling: SamplingParams, logits: FloatArray, seed: int) -> float:
    """A top-p that ends at an id or at its neighbour, because it is as near to the border as a number can be."""
    every = FullSort(replace(sampling, top_p=BELOW_ONE, min_p=0.0), logits)
    top_p = float(np.random.default_rng(seed).choice(every.masses)) / every.total
    return min(math.nextafter(top_p, (0.0, top_p, 2.0)[seed % 3]), BELOW_ONE)


def cliff(sampling: SamplingParams, size: int, seed: int) -> FloatArray:
    """Logits of which a few are near the highest, and all others are as near as the first look's bound allows."""
    rng = np.random.default_rng(seed)
    highest = float(rng.choice([0.0, 50000.0]))
    bound = np.float32(highest - Sampler(sampling)._width)
    logits = np.full(size, np.nextafter(bound, np.float32(-np.inf)))
    logits[rng.integers(0, size, 3)] = [bound, (highest + float(bound)) / 2, highest]
    return logits


def draw_logits(shape: str, size: int, seed: int) -> FloatArray:
    """Logits of one of several shapes."""
    rng = np.random.default_rng(seed)
    spread = float(rng.choice([0.01, 1.0, 3.0, 10.0]))
    logits = rng.normal(0, spread, size).astype(np.float32)
    if "peak" in shape:
        logits[rng.integers(0, size, 3)] += np.float32(rng.choice([3.0, 10.0, 40.0]))
    if "ties" in shape:
        logits = np.round(logits)
    if "forbidden" in shape:
        logits[rng.random(size) < 0.5] = -np.inf
        logits[rng.integers(size)] = 0.0
    if "huge" in shape:
        logits *= np.float32(1e30)
    return logits


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # of logits of 1e30 at a low temperature
@settings(max_examples=600, deadline=None)
@given(
    shape=st.sampled_from(["plain", "peak", "ties", "ties, peak", "forbidden", "forbidden, ties", "huge", "cliff"]),
    size=SIZES,
    seed=SEEDS,
    temperature=st.sampled_from([0.8, 0.9, LOWEST, HIGHEST, 1e-300, 1e-40, 1e-6, 1.1, 50.0, 1e30])
    | st.floats(LOWEST, HIGHEST)
    | st.floats(1e-6, 5.0),
    top_k=st.sampled_from([0, 1, 2, 40, 2500, 10**30]) | st.integers(0, 100),
    top_p=st.sampled_from([None, 1.0, 0.95, 1e-300, 1e-9, BELOW_ONE]) | st.floats(0.001, 1.0),
    min_p=st.sampled_from([0.0, 0.0, 0.05, 1e-300, 1e-9, 1.0]) | st.floats(0.001, 1.0),
)
@example(shape="plain", size=8000, seed=0, temperature=0.8, top_k=40, top_p=0.95, min_p=0.0)
@example(shape="peak", size=8000, seed=1, temperature=0.8, top_k=0, top_p=0.95, min_p=0.0)
@example(shape="peak", size=8000, seed=2, temperature=1.0, top_k=40, top_p=1.0, min_p=0.0)
@example(shape="ties", size=8000, seed=3, temperature=1.0, top_k=40, top_p=0.999, min_p=1e-9)
@example(shape="cliff", size=100, seed=0, temperature=0.01, top_k=40, top_p=0.95, min_p=0.0)
@example(shape="cliff", size=100, seed=1, temperature=0.01, top_k=40, top_p=1.0, min_p=0.0)
@example(shape="plain", size=2500, seed=0, temperature=1.0, top_k=0, top_p=0.999, min_p=0.0)
def test_every_draw_is_that_of_a_full_sort(
    shape: str, size: int, seed: int, temperature: float, top_k: int, top_p: float | None, min_p: float
) -> None:
    """A top-p of None is one at a border."""
    sampling = SamplingParams(temperature, top_k, 0.95 if top_p is None else top_p, min_p, seed=seed)
    rng = np.random.default_rng(seed)
    rows = [
        cliff(sampling, size, row) if shape == "cliff" else draw_logits(shape, size, row) for row in (seed, seed + 1)
    ]
    if top_p is None:
        sampling = replace(sampling, top_p=border_top_p(sampling, rows[0], seed))
    sampler = Sampler(sampling)
    for logits in rows:
        expected = FullSort(sampling, logits)
        for share in (0.0, BELOW_ONE, *rng.random(4), *expected.borders(rng)):
            sampler._random = partial(float, share)
            assert sampler(logits) == expected.choice(share), share


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("size", [50, 8000])
@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(0.0),
        SamplingParams(0.8, 40, 0.95),
        SamplingParams(0.8, 40, 1.0),
        SamplingParams(0.8, 0, 0.9),
        SamplingParams(1.0, 0, 1.0, 0.1),
        SamplingParams(1.0, 0, 1.0),
    ],
)
def test_one_logit_that_is_no_number_is_an_error(sampling: SamplingParams, size: int, bad: float) -> None:
    logits = draw_logits("plain", size, 0)
    logits[size // 2] = bad
    with pytest.raises(FloatingPointError):
        Sampler(sampling)(logits)


@settings(max_examples=150, deadline=None)
@given(size=SIZES, k=st.integers(1, 60) | st.integers(1, 2600), shape=st.sampled_from(["plain", "ties"]), seed=SEEDS)
@example(size=8000, k=40, shape="plain", seed=0)
@example(size=8000, k=40, shape="ties", seed=1)
@example(size=2 * GROUPS, k=1, shape="ties", seed=2)
def test_the_k_largest_logits_reach_the_bound_of_group_maxima(size: int, k: int, shape: str, seed: int) -> None:
    logits = draw_logits(shape, size, seed)
    assert np.sort(logits)[-min(k, size)] >= GroupMaxima(k)(logits)


def test_few_of_many_logits_reach_the_bound_of_group_maxima() -> None:
    logits = draw_logits("plain", 8000, 0)
    assert 40 <= np.count_nonzero(logits >= GroupMaxima(40)(logits)) < 100
