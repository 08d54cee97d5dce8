"""Reuse of positions that a session has read: the beginning of a prompt, and a fork."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runtimes import load
from runtimes.engine.arrays import FloatArray
from runtimes.engine.generator import Generator
from runtimes.engine.session import Session
from runtimes.types import GenerationConfig, SamplingParams
from tests import bundles

GREEDY = SamplingParams(temperature=0.0)


@pytest.fixture(scope="module")
def generator(tiny_checkpoint: Path) -> Generator:
    return load(bundles.tiny_bundle(tiny_checkpoint), "fp32")


@pytest.fixture(scope="module")
def session(tiny_checkpoint: Path) -> Session:
    return bundles.session(bundles.tiny_bundle(tiny_checkpoint))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of ids that each prefill reads."""
    found: list[int] = []
    prefill = Session.prefill

    def counted(session: Session, ids: Sequence[int]) -> FloatArray:
        found.append(len(ids))
        return prefill(session, ids)

    monkeypatch.setattr(Session, "prefill", counted)
    return found


def test_a_prompt_that_shares_its_beginning_reuses_the_cache(generator: Generator, runs: list[int]) -> None:
    alone = "".join(generator.stream("One day a big dog", GenerationConfig(10), GREEDY))
    list(generator.stream("One day a cat", GenerationConfig(10), GREEDY))
    runs.clear()
    reusing = generator.stream("One day a big dog", GenerationConfig(10), GREEDY)
    again = "".join(reusing)
    fresh = generator.stream("One day a big dog", GenerationConfig(1), GREEDY, reuse=False)
    list(fresh)
    shared = len(generator.encode("One day a"))
    whole = len(generator.encode("One day a big dog"))
    assert runs == [whole - shared, whole]
    assert [stream.stats.reused_prompt_tokens for stream in (reusing, fresh)] == [shared, 0]
    assert again == alone


def test_of_several_free_caches_the_one_that_shares_most_is_reused(tiny_checkpoint: Path, runs: list[int]) -> None:
    generator = load(bundles.tiny_bundle(tiny_checkpoint), "fp32")
    streams = [generator.stream(prompt, GenerationConfig(4), GREEDY) for prompt in ("Lily", "One day a cat", "Tom")]
    for stream in streams:
        next(stream)
    for stream in streams:
        list(stream)
    runs.clear()
    list(generator.stream("One day a cat", GenerationConfig(4), GREEDY))
    assert runs == [1]


def test_int8_reads_a_prompt_afresh_unless_asked_otherwise(tiny_checkpoint: Path, runs: list[int]) -> None:
    generator = load(bundles.tiny_bundle(tiny_checkpoint), "int8")
    first = generator.generate("One day a big dog", seed=1).full_text
    list(generator.stream("One day a cat", GenerationConfig(10)))
    assert generator.generate("One day a big dog", seed=1).full_text == first
    whole, other = (len(generator.encode(prompt)) for prompt in ("One day a big dog", "One day a cat"))
    assert runs == [whole, other, whole]
    list(generator.stream("One day a big dog", GenerationConfig(1), reuse=True))
    assert runs[3:] == [1]


@settings(max_examples=30, deadline=None)
@given(before=st.lists(st.integers(0, 50), max_size=40), ids=st.lists(st.integers(0, 50), min_size=1, max_size=40))
@example(before=[1, 2, 3], ids=[1, 2, 3])
@example(before=[1, 2, 3], ids=[1, 2])
@example(before=[1, 2], ids=[1, 2, 3])
def test_reading_gives_the_logits_of_a_fresh_prefill(session: Session, before: list[int], ids: list[int]) -> None:
    session.rewind(0)
    fresh = session.prefill(ids).copy()
    session.rewind(0)
    if before:
        session.read(before)
    np.testing.assert_allclose(session.read(ids), fresh, atol=1e-5)
    assert session.ids == ids


def test_a_fork_goes_its_own_way(session: Session) -> None:
    session.rewind(0)
    session.prefill([1, 2, 3])
    fork, part = session.fork(), session.fork(2)
    ours, theirs, third = session.step(4).copy(), fork.step(5).copy(), part.step(6).copy()
    assert (session.ids, fork.ids, part.ids) == ([1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 6])
    for ids, logits in (([1, 2, 3, 4], ours), ([1, 2, 3, 5], theirs), ([1, 2, 6], third)):
        session.rewind(0)
        np.testing.assert_allclose(session.prefill(ids), logits, atol=1e-5)
