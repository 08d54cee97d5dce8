"""The loss of a text under a session."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from runtimes.engine.loss import log_softmax, negative_log_likelihood, read_windows
from runtimes.engine.session import Session
from tests import bundles


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.0, 1.0, 30.0, 1e4]))
def test_the_loss_is_that_of_pytorch_in_double_precision(seed: int, spread: float) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(0, spread, (7, 13)).astype(np.float32)
    targets = random.integers(0, 13, 7)
    expected = F.cross_entropy(torch.from_numpy(logits).double(), torch.from_numpy(targets), reduction="sum")
    found = negative_log_likelihood(log_softmax(logits), targets)
    assert found == pytest.approx(float(expected), rel=1e-5, abs=1e-5)
    np.testing.assert_allclose(
        log_softmax(logits), torch.from_numpy(logits).double().log_softmax(-1), rtol=1e-5, atol=1e-4
    )


def test_the_loss_of_equally_likely_tokens_is_the_logarithm_of_their_number() -> None:
    found = negative_log_likelihood(log_softmax(np.full((5, 8), 3, np.float32)), np.arange(5))
    assert found == pytest.approx(5 * np.log(8))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_no_numbers_give_a_loss_that_is_none_and_no_warning(value: float) -> None:
    logits = np.zeros((3, 4), np.float32)
    logits[1, 2] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(negative_log_likelihood(log_softmax(logits), np.zeros(3, np.int64)))
        assert np.isfinite(log_softmax(logits)[[0, 2]]).all()


@pytest.mark.parametrize("token_by_token", [False, True])
def test_each_window_is_read_from_an_empty_cache(token_by_token: bool) -> None:
    model, path = bundles.small_graph()
    windows = np.random.default_rng(0).integers(0, model.config.vocab_size, (3, model.config.block_size))
    session = Session.open(path, model.config)
    session.prefill([1, 2, 3])
    found = [logits.copy() for logits in read_windows(session, windows, token_by_token)]
    with torch.inference_mode():
        expected = model(torch.from_numpy(windows)).numpy()
    np.testing.assert_allclose(np.stack(found), expected, atol=1e-4)


def test_shorter_windows_are_read_too(tiny_checkpoint: Path) -> None:
    session = bundles.session(bundles.tiny_bundle(tiny_checkpoint))
    whole, stepwise = (next(read_windows(session, np.array([[5, 6, 7]]), way)) for way in (False, True))
    assert whole.shape == stepwise.shape == (3, session.config.vocab_size)
    np.testing.assert_allclose(whole, stepwise, atol=1e-4)
