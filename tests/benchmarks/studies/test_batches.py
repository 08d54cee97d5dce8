"""Ctrl-C in a batch ends a study: parts of stories are never measured."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from benchmarks.studies.batches import whole_batch
from runtimes import load
from runtimes.types import GenerationConfig, SamplingParams
from tests import bundles

PROMPTS = ["One day", "Once upon a time"]


def test_a_batch_that_ctrl_c_stops_is_no_batch(tiny_checkpoint: Path) -> None:
    with load(bundles.tiny_bundle(tiny_checkpoint)) as generator:
        endless = GenerationConfig(on_full="slide", ignore_eos=True, max_tokens=10**6)
        timer = threading.Timer(0.5, signal.raise_signal, [signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            whole_batch(generator, PROMPTS, endless, SamplingParams())
        timer.join()


def test_a_batch_has_a_story_for_each_prompt(tiny_checkpoint: Path) -> None:
    with load(bundles.tiny_bundle(tiny_checkpoint)) as generator:
        stories = whole_batch(generator, PROMPTS, GenerationConfig(max_tokens=3, ignore_eos=True), SamplingParams())
    assert [len(story.ids) for story in stories] == [3, 3]
