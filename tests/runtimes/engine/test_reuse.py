"""What a session keeps of what it read: a prompt's beginning, a fork."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runtimes import load
from runtimes.engine.cache import FloatArray
from runtimes.engine.generator import GenerationConfig, Generator
from runtimes.engine.sampler import SamplingParams
from tests import bundles

GREEDY = SamplingParams(temperature=0.0)


@pytest.fixture(scope="module")
def generator(tiny_checkpoint: Path) -> Generator:
    return load(bundles.tiny_bundle(tiny_checkpoint), "fp32")


def test_a_prompt_that_shares_its_beginning_reuses_the_cache(generator: Generator) -> None:
    alone = "".join(generator.stream("One day a big dog", GenerationConfig(10), GREEDY))
    list(generator.stream("One day a cat", GenerationConfig(10), GREEDY))
    session, runs = generator.session, []
    prefill = session.prefill

    def counted(ids: Sequence[int]) -> FloatArray:
        runs.append(len(ids))
        return prefill(ids)

    session.prefill = counted  # type: ignore[method-assign,assignment]
    try:
        again = "".join(generator.stream("One day a big dog", GenerationConfig(10), GREEDY))
        list(generator.stream("One day a big dog", GenerationConfig(1), GREEDY, reuse=False))
    finally:
        del session.prefill
    shared = len(generator.encode("One day a"))
    whole = len(generator.encode("One day a big dog"))
    assert runs == [whole - shared, whole]
    assert again == alone


def test_int8_reads_a_prompt_afresh_unless_told_otherwise(tiny_checkpoint: Path) -> None:
    generator = load(bundles.tiny_bundle(tiny_checkpoint), "int8")
    first = generator.generate("One day a big dog", seed=1).text
    list(generator.stream("One day a cat", GenerationConfig(10)))
    assert generator.generate("One day a big dog", seed=1).text == first


@settings(max_examples=30, deadline=None)
@given(before=st.lists(st.integers(0, 50), max_size=40), ids=st.lists(st.integers(0, 50), min_size=1, max_size=40))
@example(before=[1, 2, 3], ids=[1, 2, 3])
@example(before=[1, 2, 3], ids=[1, 2])
@example(before=[1, 2], ids=[1, 2, 3])
def test_reading_gives_the_logits_of_a_fresh_prefill(generator: Generator, before: list[int], ids: list[int]) -> None:
    session = generator.session
    session.rewind(0)
    fresh = session.prefill(ids).copy()
    session.rewind(0)
    if before:
        session.read(before)
    np.testing.assert_allclose(session.read(ids), fresh, atol=1e-5)
    assert session.ids == ids


def test_a_fork_goes_its_own_way(generator: Generator) -> None:
    session = generator.session
    session.rewind(0)
    session.prefill([1, 2, 3])
    fork = session.fork()
    ours, theirs = session.step(4).copy(), fork.step(5).copy()
    assert (session.ids, fork.ids) == ([1, 2, 3, 4], [1, 2, 3, 5])
    for ids, logits in (([1, 2, 3, 4], ours), ([1, 2, 3, 5], theirs)):
        session.rewind(0)
        np.testing.assert_allclose(session.prefill(ids), logits, atol=1e-5)
