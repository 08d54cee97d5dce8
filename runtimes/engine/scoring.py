"""The log-probabilities of the ids of a text. It does not use a session."""

from __future__ import annotations

import numpy as np

from runtimes.engine.arrays import FloatArray
from runtimes.engine.logprobs import most_likely
from runtimes.engine.loss import log_softmax


class TextScore:
    """The score of one text: the log-probability of each id after the ids before it. The first id has none.

    The caller runs the model. It reads `ids[:-1]` in chunks and passes the logits of each chunk to `accept`.

    Args:
        ids: The ids of the text. The first is the token that begins every story.
        top_logprobs: The number of most likely ids to record at each position.

    Attributes:
        logprobs: Natural logarithms of the probabilities of `ids[1:]`.
        top_logprobs: The most likely ids at the position of each of `ids[1:]`, with their log-probabilities.
        error: The error that ended the score, or None.
    """

    def __init__(self, ids: list[int], top_logprobs: int = 0) -> None:
        self.ids = ids
        self.logprobs: list[float] = []
        self.top_logprobs: list[dict[int, float]] = []
        self.error: Exception | None = None
        self._top = top_logprobs

    @property
    def done(self) -> bool:
        """Whether every id has its log-probability, or an error ended the score."""
        return len(self.logprobs) >= len(self.ids) - 1 or self.error is not None

    def accept(self, logits: FloatArray) -> None:
        """Scores the next ids.

        Args:
            logits: float32 [n, vocab] after the next n ids.

        Raises:
            FloatingPointError: The logits are NaN or infinite.
        """
        start = 1 + len(self.logprobs)
        targets = np.array(self.ids[start : start + len(logits)])
        logprobs = log_softmax(logits)
        found = logprobs[np.arange(len(targets)), targets]
        if not np.isfinite(found).all():
            raise FloatingPointError
        self.logprobs += found.tolist()
        if self._top:
            self.top_logprobs += [most_likely(row, self._top, 0.0) for row in logprobs]
