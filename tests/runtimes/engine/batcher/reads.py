"""What a batcher reads, stories for it, and their settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import pytest

from runtimes.engine.arrays import FloatArray
from runtimes.engine.batcher import Batcher
from runtimes.engine.generator import Generator
from runtimes.engine.pool import Pool
from runtimes.engine.story import Story
from runtimes.types import Completion, GenerationConfig, SamplingParams

GREEDY = SamplingParams(temperature=0.0)
ENDLESS = GenerationConfig(ignore_eos=True)
LONG = "One day, Tom went to the park with a big ball. Lily saw a little dog in the garden."
PROMPTS = ["", "Lily", "Once upon a time", "Once upon a time, there was", LONG, LONG + " The dog was very happy."]
CONFIGS = [
    GenerationConfig(1),
    GenerationConfig(12, logprobs=True),
    GenerationConfig(),
    GenerationConfig(stop="the"),
    GenerationConfig(90, on_full="slide"),
]


class Reads:
    """How many positions each run of a prompt read, and each step of the pool."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prompts: list[int] = []
        self.between_steps: list[int] = []
        self.rows: list[int] = []
        self._since = 0
        prefill, score, step = Pool.prefill, Pool.score, Pool.step

        def counted(run: Callable[[Pool, int, Sequence[int]], FloatArray]) -> Callable[..., FloatArray]:
            def one(pool: Pool, row: int, ids: Sequence[int]) -> FloatArray:
                self.prompts.append(len(ids))
                self._since += len(ids)
                return run(pool, row, ids)

            return one

        def stepped(pool: Pool, tokens: Sequence[int]) -> FloatArray:
            self.between_steps.append(self._since)
            self.rows.append(len(tokens))
            self._since = 0
            return step(pool, tokens)

        monkeypatch.setattr(Pool, "prefill", counted(prefill))
        monkeypatch.setattr(Pool, "score", counted(score))
        monkeypatch.setattr(Pool, "step", stepped)


def finish(batcher: Batcher) -> dict[Story, str]:
    """Runs all that is in it, and returns the text of each story."""
    texts: dict[Story, str] = {}
    while batcher.running:
        for story, piece in batcher.step():
            texts[story] = texts.get(story, "") + piece
    return texts


def greedy(generator: Generator, prompt: str | Sequence[int], config: GenerationConfig = ENDLESS) -> Story:
    return generator.story(prompt, config, GREEDY)


@cache
def alone(generator: Generator, prompt: str, config: int, seed: int) -> Completion:
    stream = generator.stream(prompt, CONFIGS[config], SamplingParams(1.0, seed=seed), reuse=False)
    for _ in stream:
        pass
    return stream.completion
