"""Checks that the output of a runner is right. A runner with wrong output is not timed.

There are two figures:

- `agreement` is the share of leading greedy ids that are equal to those of the float model. If two ids are almost
  equally likely, rounding decides between them, and after that the two texts differ. This happens soon with quantized
  weights, so this figure is a criterion only for runners that compute in float32.
- The share of likely ids is a criterion for every runner. At each position, the float model reads the ids that the
  runner wrote so far, and the next id must be among the most likely ids of the float model. A runner that computes the
  same function passes, except for ids that are almost equally likely. Random weights give almost equal logits
  everywhere. For them, an id counts if it is among the ten most likely of thousands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.report.record import Case
from runtimes.beginnings import shared_length
from slm.model import GPT, generate_greedy

# The least share of leading ids of a float runner that must be equal to the float model's.
LEAST_AGREEMENT = 0.5
# The least share of likely ids, and the number of ids at a position that count as likely.
LEAST_LIKELY = 0.5
LIKELIEST_TRAINED, LIKELIEST_RANDOM = 1, 10


@dataclass(frozen=True)
class ExpectedOutput:
    """The float model and its greedy ids after a context.

    Attributes:
        model: The float model.
        context: The ids of the context.
        ids: The greedy ids of the float model after the context.
        trained: Whether its weights are trained.
        float_runners: The names of the runners whose weights are float32.
    """

    model: GPT
    context: list[int]
    ids: list[int]
    trained: bool
    float_runners: frozenset[str]

    @classmethod
    def of(
        cls, model: GPT, context: list[int], new_tokens: int, trained: bool, float_runners: frozenset[str]
    ) -> ExpectedOutput:
        """Writes `new_tokens` greedy ids after a context with the float model."""
        return cls(model, context, generate_greedy(model, context, new_tokens), trained, float_runners)

    def agreement(self, rows: Sequence[Sequence[int]]) -> float:
        """Returns the share of leading ids that are equal to the float model's, in the row with the smallest share."""
        return min((shared_length(row, self.ids) for row in rows), default=0) / len(self.ids)

    def wrong(self, case: Case, rows: Sequence[Sequence[int]]) -> str | None:
        """Returns why the rows of a case are wrong; None if they are right."""
        if [len(row) for row in rows] != [case.new_tokens] * case.batch:
            lengths = ", ".join(str(len(row)) for row in rows) or "no"
            return f"not timed: wrote {lengths} ids, not {case.new_tokens} in each of {case.batch} rows"
        if not all(0 <= token < self.model.config.vocab_size for row in rows for token in row):
            return "not timed: wrote ids that are not in the vocabulary"
        agreement = self.agreement(rows)
        if case.runner in self.float_runners and agreement < LEAST_AGREEMENT:
            return f"not timed: only the first {agreement:.0%} of its greedy ids are equal to the float model's"
        count = LIKELIEST_TRAINED if self.trained else LIKELIEST_RANDOM
        likely = min(self._likely(row, count) for row in {tuple(row) for row in rows})
        if likely < LEAST_LIKELY:
            rank = "the likeliest" if count == 1 else f"among the {count} likeliest"
            return f"not timed: the float model finds only {likely:.0%} of its ids {rank}"
        return None

    @torch.inference_mode()
    def _likely(self, row: Sequence[int], count: int) -> float:
        """Returns the share of a row's ids that are among the `count` most likely at their positions."""
        ids = torch.tensor([[*self.context, *row]])
        logits = self.model(ids[:, :-1])[0, len(self.context) - 1 :].numpy()
        own = np.take_along_axis(logits, np.array(row)[:, None], axis=-1)
        return float(((logits > own).sum(-1) < count).mean())
