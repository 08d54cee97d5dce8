"""Only the tokens after a prompt are counted, and float loses nothing by the way in which the prompt is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.studies.after_prompt import FLOAT, IN_ONE_PASS, TOKEN_BY_TOKEN, measure, nats_after, table
from export.formats.fused import export_onnx
from runtimes.engine.loss import log_softmax, negative_log_likelihood
from runtimes.engine.session import Session
from slm.checkpoint import load_checkpoint
from slm.console.errors import UsageError


@pytest.fixture
def session(tiny_checkpoint: Path, tmp_path: Path) -> Session:
    loaded = load_checkpoint(tiny_checkpoint)
    export_onnx(loaded.model, tmp_path / "fp32.onnx")
    return Session.open(tmp_path / "fp32.onnx", loaded.model.config)


def test_the_tokens_after_a_prompt_cost_what_the_whole_text_says(session: Session) -> None:
    story = np.random.default_rng(0).integers(0, session.config.vocab_size, 60)
    session.reset()
    logits = session.score(story[:-1])
    expected = negative_log_likelihood(log_softmax(logits[9:]), story[10:])
    for in_one_pass in (True, False):
        assert nats_after(session, story, 10, in_one_pass) == pytest.approx(expected, rel=1e-5)


def test_float_loses_nothing_and_short_stories_are_left_out(session: Session) -> None:
    random = np.random.default_rng(0)
    stories = [random.integers(0, session.config.vocab_size, size) for size in (20, 50, 64, 64)]
    row = measure({FLOAT: session, "int8": session}, stories, 12)
    assert (row["stories"], row["tokens"]) == (2, 2 * 52)
    assert row[IN_ONE_PASS]["value"] == 0
    assert row[TOKEN_BY_TOKEN]["value"] == pytest.approx(0, abs=1e-6)
    assert "| 12 | 104 | +0.00% +-0.00% |" in table({"12": row})
    with pytest.raises(UsageError, match="--prompt 30: no story of the text has 40 tokens after it"):
        measure({FLOAT: session, "int8": session}, stories, 30)
