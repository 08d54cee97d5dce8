"""Nobody is timed on a wrong answer: what a side wrote, held against the float model.

Two figures. `agreement` is the share of leading greedy ids that are the float model's. Chains part for good where two
ids are almost as likely, which quantized weights meet soon, so it judges float sides alone. What judges every side is
the float model's opinion of each id behind the ids that the side itself wrote before: a side that computes the same
function writes what the float model would, but for near ties, and a wrong one does not. Random weights give almost
flat logits, full of near ties, so there an id counts that is among the ten likeliest, of thousands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.report.record import Case
from slm.model import GPT, generate_greedy

# The least share of leading ids that a float side must have in common with the float model.
LEAST_AGREEMENT = 0.5
# The least share of ids that the float model must find among its likeliest, and how many of those count.
LEAST_LIKELY = 0.5
LIKELIEST_TRAINED, LIKELIEST_RANDOM = 1, 10


@dataclass(frozen=True)
class Reference:
    """The float model's greedy ids behind `context`, and the model to judge others' with.

    `float_sides` are the names of sides that store and compute in float32.
    """

    model: GPT
    context: list[int]
    ids: list[int]
    trained: bool
    float_sides: frozenset[str]

    @classmethod
    def of(
        cls, model: GPT, context: list[int], new_tokens: int, trained: bool, float_sides: frozenset[str]
    ) -> Reference:
        """Let the float model write `new_tokens` greedy ids behind a context."""
        return cls(model, context, generate_greedy(model, context, new_tokens), trained, float_sides)

    def agreement(self, rows: Sequence[Sequence[int]]) -> float:
        """The share of leading ids that are the float model's, of the row that has fewest."""
        return min(_leading(row, self.ids) for row in rows) / len(self.ids)

    def wrong(self, case: Case, rows: Sequence[Sequence[int]]) -> str | None:
        """Why these rows are a wrong answer, None when they are right."""
        if {len(row) for row in rows} != {case.new_tokens}:
            return f"not timed: wrote {len(rows[0])} ids, asked for {case.new_tokens}"
        if not all(0 <= token < self.model.config.vocab_size for row in rows for token in row):
            return "not timed: wrote ids that are not in the vocabulary"
        agreement = self.agreement(rows)
        if case.side in self.float_sides and agreement < LEAST_AGREEMENT:
            return f"not timed: only the first {agreement:.0%} of its greedy ids are the float model's"
        count = LIKELIEST_TRAINED if self.trained else LIKELIEST_RANDOM
        likely = min(self._likely(row, count) for row in {tuple(row) for row in rows})
        if likely < LEAST_LIKELY:
            whose = "the likeliest" if count == 1 else f"among the {count} likeliest"
            return f"not timed: only {likely:.0%} of its ids are {whose} to the float model behind what it wrote"
        return None

    @torch.inference_mode()
    def _likely(self, row: Sequence[int], count: int) -> float:
        """The share of a row's ids that are among the `count` likeliest at their place."""
        ids = torch.tensor([[*self.context, *row]])
        logits = self.model(ids[:, :-1])[0, len(self.context) - 1 :].numpy()
        own = np.take_along_axis(logits, np.array(row)[:, None], axis=-1)
        return float(((logits > own).sum(-1) < count).mean())


def _leading(row: Sequence[int], expected: Sequence[int]) -> int:
    """How many ids are the same before the first that is not."""
    pairs = zip(row, expected, strict=False)
    return next((number for number, (ours, theirs) in enumerate(pairs) if ours != theirs), min(len(row), len(expected)))
