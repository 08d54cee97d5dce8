"""The choice of the next id, compared with Hugging Face transformers' processors."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from runtimes.engine.arrays import FloatArray
from runtimes.engine.penalties import NoTokenLeftError, Penalties
from runtimes.engine.sampler import FIRST_LOOK, GROUPS, Sampler
from runtimes.types import LogitsRules, SamplingParams
from slm.console.errors import SlmxError

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.integers(1, 40) | st.integers(1, 2500) | st.sampled_from([FIRST_LOOK, GROUPS, 2 * GROUPS, 2 * GROUPS + 1])


def random_logits(size: int, seed: int, spread: float = 3.0) -> FloatArray:
    return np.random.default_rng(seed).normal(0, spread, size).astype(np.float32)


def kept(sampling: SamplingParams, logits: FloatArray, seen: list[int]) -> dict[int, float]:
    """The distribution that a sampler draws from."""
    sampler = Sampler(sampling, seen)
    if sampler._penalties is not None:
        logits = sampler._penalties(logits)
    if not sampling.top_k and sampling.top_p == 1.0 and not sampling.min_p:
        weights = sampler._weights(logits)
        return dict(enumerate((weights / weights.sum()).tolist()))
    found = sampler._kept(logits)
    weights = np.diff(found.masses[: found.last + 1], prepend=0.0)
    return dict(zip(map(found.id_at, range(found.last + 1)), (weights / weights.sum()).tolist(), strict=True))


def transformers_kept(sampling: SamplingParams, logits: FloatArray, seen: list[int]) -> dict[int, float]:
    """The same in Hugging Face transformers. Its sums are in float64, so that only the rule is compared."""
    chain = LogitsProcessorList()
    if sampling.rules.repetition_penalty != 1.0:
        chain.append(RepetitionPenaltyLogitsProcessor(sampling.rules.repetition_penalty))
    chain.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        chain.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1.0:
        chain.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        chain.append(MinPLogitsWarper(sampling.min_p))
    scores = chain(
        cast("torch.LongTensor", torch.tensor([seen])),
        cast("torch.FloatTensor", torch.from_numpy(logits)[None].double()),
    )[0]
    probabilities = scores.softmax(-1)
    return {i: float(probabilities[i]) for i in torch.nonzero(torch.isfinite(scores)).flatten().tolist()}


@pytest.mark.parametrize("top_k", [10**6, 10**12, 10**400])
def test_a_top_k_beyond_the_vocabulary_keeps_all_of_it(top_k: int) -> None:
    logits = random_logits(5000, 3)
    sampling = SamplingParams(1.0, top_k, 0.9, seed=5)
    assert kept(sampling, logits, []) == pytest.approx(kept(replace(sampling, top_k=5000), logits, []))
    assert Sampler(sampling)(logits) == Sampler(replace(sampling, top_k=5000))(logits)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    size=SIZES,
    seed=SEEDS,
    spread=st.sampled_from([0.01, 1.0, 3.0, 10.0]),
    temperature=st.floats(0.05, 5.0),
    top_k=st.just(0) | st.integers(1, 100),
    top_p=st.just(1.0) | st.floats(0.001, 0.999),
    min_p=st.just(0.0) | st.floats(0.001, 0.999),
    penalty=st.just(1.0) | st.floats(0.5, 3.0),
)
@example(size=2500, seed=0, spread=0.01, temperature=5.0, top_k=0, top_p=0.999, min_p=0.0, penalty=1.0)
@example(size=2500, seed=0, spread=10.0, temperature=0.05, top_k=0, top_p=0.001, min_p=0.0, penalty=1.0)
@example(size=2500, seed=0, spread=3.0, temperature=1.0, top_k=0, top_p=1.0, min_p=0.05, penalty=1.0)
def test_same_kept_ids_and_probabilities_as_transformers(
    size: int, seed: int, spread: float, temperature: float, top_k: int, top_p: float, min_p: float, penalty: float
) -> None:
    logits = random_logits(size, seed, spread)
    seen = np.random.default_rng(seed + 1).integers(0, size, 1 + size // 4).tolist()
    sampling = SamplingParams(temperature, top_k, top_p, min_p, rules=LogitsRules(penalty))
    ours, theirs = kept(sampling, logits, seen), transformers_kept(sampling, logits, seen)
    boundary = [(i, p) for i, p in (ours | theirs).items() if (i in ours) != (i in theirs)]
    if boundary:
        # Our logits are float32 and the others float64. They may differ on an id whose rank or mass is on the limit.
        assert len(boundary) == 1
        assert boundary[0][1] == pytest.approx(min((ours | theirs).values()), rel=1e-3)
        return
    ids = sorted(ours)
    np.testing.assert_allclose([ours[i] for i in ids], [theirs[i] for i in ids], rtol=2e-4, atol=1e-9)


def test_equal_logits_at_the_border_of_top_k_keep_exactly_k_the_lower_ids_first() -> None:
    logits = np.array([1, 5, 3, 3, 3], np.float32)
    assert sorted(kept(SamplingParams(1.0, 2, 1.0), logits, [])) == [1, 2]


def test_top_p_keeps_the_id_that_reaches_the_mass_and_always_one() -> None:
    logits = np.log(np.array([0.1, 0.5, 0.25, 0.15], np.float32))
    assert sorted(kept(SamplingParams(1.0, 0, 0.6), logits, [])) == [1, 2]
    assert sorted(kept(SamplingParams(1.0, 0, 1e-9), logits, [])) == [1]
    assert sorted(kept(SamplingParams(1.0, 3, 0.6), logits, [])) == [1, 2]
    assert sorted(kept(SamplingParams(1.0, 3, 0.55), logits, [])) == [1]


@pytest.mark.parametrize(
    "settings_",
    [
        SamplingParams(1.3, 0, 1.0),
        SamplingParams(0.7, 6, 0.9),
        SamplingParams(1.0, 0, 0.8, rules=LogitsRules(1.7)),
        SamplingParams(1.0, 0, 1.0, 0.2),
    ],
)
def test_draws_follow_the_distribution(settings_: SamplingParams) -> None:
    logits, seen, draws = random_logits(10, 4, 1.5), [2, 3, 5], 6000
    expected = transformers_kept(settings_, logits, seen)
    counts = np.zeros(len(logits))
    for seed in range(draws):
        counts[Sampler(replace(settings_, seed=seed), seen)(logits)] += 1
    for i, count in enumerate(counts):
        p = expected.get(i, 0.0)
        assert abs(count - draws * p) <= 5 * math.sqrt(draws * p * (1 - p)), i


@settings(max_examples=100, deadline=None)
@given(size=SIZES, seed=SEEDS, penalty=st.just(1.0) | st.floats(0.5, 3.0))
def test_greedy_is_the_likeliest_after_the_penalty(size: int, seed: int, penalty: float) -> None:
    logits = random_logits(size, seed)
    seen = sorted({0, size // 2})
    sampler = Sampler(SamplingParams(temperature=0.0, rules=LogitsRules(penalty)), seen)
    for _ in range(3):
        expected = logits.copy()
        if penalty != 1.0:
            for i in seen:
                expected[i] = logits[i] / np.float32(penalty) if logits[i] > 0 else logits[i] * np.float32(penalty)
        chosen = sampler(logits)
        assert chosen == int(expected.argmax())
        seen = sorted({*seen, chosen})


@pytest.mark.filterwarnings("error")
@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, temperature=st.sampled_from([1e-300, 1e-50, 1e-40, 1e-20, 1e-6]), top_k=st.sampled_from([0, 5, 40]))
def test_a_tiny_temperature_is_nearly_greedy(seed: int, temperature: float, top_k: int) -> None:
    logits = random_logits(300, seed)
    logits[seed % 300] += 10
    for top_p in (0.9, 1.0):
        assert Sampler(SamplingParams(temperature, top_k, top_p, seed=seed))(logits) == int(logits.argmax())


def test_same_seed_same_ids_another_seed_others() -> None:
    rows = [random_logits(500, seed, 1.0) for seed in range(20)]

    def draw(seed: int | None) -> list[int]:
        sampler = Sampler(SamplingParams(1.0, 0, 1.0, seed=seed))
        return [sampler(row) for row in rows]

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)
    assert draw(None) != draw(None)


@settings(max_examples=60, deadline=None)
@given(
    size=SIZES,
    seed=SEEDS,
    sampling=st.sampled_from(
        [
            SamplingParams(0.0),
            SamplingParams(0.0, rules=LogitsRules(1.3)),
            SamplingParams(0.8, 40, 0.95, rules=LogitsRules(1.3, 0.1, 0.2, 2, 1, {0: 1.0})),
            SamplingParams(0.8, 40, 0.95, 0.1),
            SamplingParams(0.8, 0, 0.95),
            SamplingParams(0.8, 0, 1.0),
            SamplingParams(0.8, 40, 1.0),
        ]
    ),
)
def test_logits_are_left_as_they_are(size: int, seed: int, sampling: SamplingParams) -> None:
    logits: npt.NDArray[np.float32] = random_logits(size, seed)
    before = logits.copy()
    chosen = Sampler(sampling, [0])(logits)
    assert 0 <= chosen < size
    np.testing.assert_array_equal(logits, before)


def test_a_penalty_of_one_remembers_nothing_and_another_remembers_what_was_chosen() -> None:
    logits = np.array([2.0, 1.9, -1.0], np.float32)
    plain, penalized = Sampler(SamplingParams(0.0)), Sampler(SamplingParams(0.0, rules=LogitsRules(1.5)))
    assert [plain(logits) for _ in range(3)] == [0, 0, 0]
    assert [penalized(logits) for _ in range(3)] == [0, 1, 0]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("temperature", -0.1, "temperature"),
        ("temperature", math.inf, "temperature"),
        ("temperature", math.nan, "temperature"),
        ("top_k", -1, "top-k"),
        ("top_p", 0.0, "top-p"),
        ("top_p", -0.5, "top-p"),
        ("top_p", 1.0001, "top-p"),
        ("top_p", math.nan, "top-p"),
        ("min_p", -0.1, "min-p"),
        ("min_p", 1.1, "min-p"),
        ("min_p", math.nan, "min-p"),
        ("seed", -1, "seed"),
    ],
)
def test_a_value_outside_its_range_is_refused(name: str, value: float, said: str) -> None:
    with pytest.raises(SlmxError) as caught:
        SamplingParams(**{name: value})  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"{said} must ")
    assert f"not {value}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [{"temperature": 0.0}, {"top_k": 0}, {"top_p": 1.0}, {"min_p": 1.0}, {"seed": 0}])
def test_the_ends_of_the_ranges_are_allowed(values: dict[str, float]) -> None:
    SamplingParams(**values)  # type: ignore[arg-type]


IDS = st.lists(st.integers(0, 11), min_size=1, max_size=30)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    prompt=IDS,
    written=st.lists(st.integers(0, 11), max_size=30),
    seed=SEEDS,
    penalty=st.just(1.0) | st.floats(0.5, 3.0),
    ngram=st.integers(0, 4),
    min_tokens=st.integers(0, 20),
    bias=st.dictionaries(st.integers(0, 11), st.floats(-10, 10), max_size=4),
)
def test_rules_are_those_of_transformers_in_its_order(
    prompt: list[int],
    written: list[int],
    seed: int,
    penalty: float,
    ngram: int,
    min_tokens: int,
    bias: dict[int, float],
) -> None:
    logits, end = random_logits(12, seed), 11
    rules = LogitsRules(repetition_penalty=penalty, no_repeat_ngram=ngram, min_tokens=min_tokens, logit_bias=bias)
    ours = Penalties(rules, prompt, end)
    for token in written:
        ours.chose(token)
    chain = LogitsProcessorList()
    if bias:
        biases: Any = {(token,): value for token, value in bias.items()}
        chain.append(SequenceBiasLogitsProcessor(biases))
    if penalty != 1.0:
        chain.append(RepetitionPenaltyLogitsProcessor(penalty))
    if ngram:
        chain.append(NoRepeatNGramLogitsProcessor(ngram))
    if min_tokens:
        chain.append(MinNewTokensLengthLogitsProcessor(len(prompt), min_tokens, end))
    theirs = chain(
        cast("torch.LongTensor", torch.tensor([[*prompt, *written]])),
        cast("torch.FloatTensor", torch.from_numpy(logits.copy())[None]),
    )[0].numpy()
    np.testing.assert_allclose(ours(logits), theirs, rtol=1e-5)


def test_presence_is_taken_once_and_frequency_each_time_from_what_was_written() -> None:
    rules = Penalties(LogitsRules(presence_penalty=0.5, frequency_penalty=0.25), [3], None)
    for token in (1, 1, 2):
        rules.chose(token)
    np.testing.assert_allclose(rules(np.zeros(4, np.float32)), [0, -1.0, -0.75, 0])


BIAS = "logit bias must be the id of a token and a number up to 1e+30"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"repetition_penalty": 0.0}, "repetition penalty must be above 0, up to 1e+30 (1 is off), not 0.0"),
        ({"repetition_penalty": math.nan}, "repetition penalty must be above 0, up to 1e+30 (1 is off), not nan"),
        ({"presence_penalty": math.inf}, "presence penalty must lie from -1e+30 to 1e+30 (0 is off), not inf"),
        ({"frequency_penalty": math.nan}, "frequency penalty must lie from -1e+30 to 1e+30 (0 is off), not nan"),
        ({"no_repeat_ngram": -1}, "no-repeat n-gram must be 0 (off) or more, not -1"),
        ({"min_tokens": -1}, "min tokens must be 0 (off) or more, not -1"),
        ({"logit_bias": {-1: 1.0}}, f"{BIAS}, not -1=1.0"),
        ({"logit_bias": {1: math.nan}}, f"{BIAS}, not 1=nan"),
        (
            {"logit_bias": {10**30: 1.0}},
            f"{BIAS}, not {10**30}=1.0",
        ),
        ({"logit_bias": {1: 1e39}}, f"{BIAS}, not 1=1e+39"),
        ({"repetition_penalty": 1e39}, "repetition penalty must be above 0, up to 1e+30 (1 is off), not 1e+39"),
        ({"presence_penalty": 1e39}, "presence penalty must lie from -1e+30 to 1e+30 (0 is off), not 1e+39"),
    ],
)
def test_a_rule_outside_its_range_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SlmxError) as caught:
        LogitsRules(**values)
    assert str(caught.value) == said


WAYS = [
    SamplingParams(0.0),
    SamplingParams(0.8, 40, 0.95),
    SamplingParams(1.0, 0, 0.9),
    SamplingParams(1.0, 0, 1.0),
    SamplingParams(1.0, 0, 1.0, 0.1),
]


@pytest.mark.parametrize("sampling", WAYS)
def test_rules_that_forbid_every_id_choose_none(sampling: SamplingParams) -> None:
    sampler = Sampler(replace(sampling, rules=LogitsRules(no_repeat_ngram=1, min_tokens=9)), [0, 2], 3)
    assert sampler(np.zeros(4, np.float32)) == 1
    with pytest.raises(NoTokenLeftError):
        sampler(np.zeros(4, np.float32))


@pytest.mark.parametrize("sampling", WAYS[:2])
def test_an_infinite_logit_is_no_choice(sampling: SamplingParams) -> None:
    logits = random_logits(50, 0)
    logits[7] = np.inf
    with pytest.raises(FloatingPointError):
        Sampler(sampling)(logits)


@pytest.mark.parametrize("size", [5, 8000])
@pytest.mark.parametrize("sampling", WAYS)
def test_logits_that_are_no_numbers_are_an_error(sampling: SamplingParams, size: int) -> None:
    with pytest.raises(FloatingPointError):
        Sampler(sampling)(np.full(size, np.nan, np.float32))


def test_every_one_of_equal_logits_can_be_drawn() -> None:
    logits = np.zeros(2 * GROUPS, np.float32)
    logits[[3, 70, 800]] = 5.0
    sampler = Sampler(SamplingParams(1.0, 3, 1.0, seed=0))
    assert {sampler(logits) for _ in range(60)} == {3, 70, 800}


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (4, 1.0), (0, 0.999), (4, 0.999)])
@pytest.mark.parametrize(("min_p", "kept"), [(1.0, {1, 3}), (0.5, {0, 1, 3}), (0.3, {0, 1, 3}), (0.2, {0, 1, 2, 3})])
def test_min_p_keeps_the_ids_at_its_bound_with_every_other_rule(
    top_k: int, top_p: float, min_p: float, kept: set[int]
) -> None:
    logits = np.log(np.array([0.2, 0.4, 0.1, 0.4, 1e-9, 1e-9], np.float32))
    logits[0] = logits[1] + np.log(0.5)
    sampler = Sampler(SamplingParams(1.0, top_k, top_p, min_p, seed=1))
    assert {sampler(logits) for _ in range(400)} == kept
