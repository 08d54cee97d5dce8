"""Rules that change the logits of the next id, depending on the text so far. They apply before temperature."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from runtimes.engine.arrays import FloatArray
from runtimes.types import LogitsRules

if TYPE_CHECKING:
    from runtimes.engine.banned_words import BannedWordsRule


class NoTokenLeftError(Exception):
    """The rules forbid every id."""


class Penalties:
    """The rules for one sequence. Call it with logits, then report the chosen id with `chose`.

    Args:
        rules: The rules. The vocabulary has every id of their bias.
        prompt: Ids of the prompt.
        end: Id or ids that end the text; None for no such id.
        banned: The rule of `rules.ban_words`; None if there are none.
    """

    def __init__(
        self,
        rules: LogitsRules,
        prompt: Iterable[int],
        end: int | list[int] | None,
        banned: BannedWordsRule | None = None,
    ) -> None:
        if rules.ban_words and banned is None:
            raise ValueError("banned words need a BannedWordsRule, which knows the bytes of the ids")
        self.rules = rules
        self._banned = banned
        self._end = end
        self._ids = list(prompt)
        self._seen = dict.fromkeys(self._ids)
        self._counts: Counter[int] = Counter()
        self._bias_ids = np.array([*rules.logit_bias], np.intp)
        self._bias = np.array([*rules.logit_bias.values()], np.float32)

    def __call__(self, logits: FloatArray) -> FloatArray:
        """Applies the rules.

        Args:
            logits: float32 [vocab]; not changed.

        Returns:
            A changed copy [vocab].

        Raises:
            NoTokenLeftError: The rules forbid every id.
        """
        rules, logits = self.rules, logits.copy()
        if len(self._bias_ids):
            logits[self._bias_ids] += self._bias
        if rules.repetition_penalty != 1.0 and self._seen:
            seen = np.fromiter(self._seen, np.intp, len(self._seen))
            values, penalty = logits[seen], np.float32(rules.repetition_penalty)
            logits[seen] = np.where(values > 0, values / penalty, values * penalty)
        if (rules.presence_penalty or rules.frequency_penalty) and self._counts:
            written = np.fromiter(self._counts, np.intp, len(self._counts))
            times = np.fromiter(self._counts.values(), np.float32, len(self._counts))
            logits[written] -= np.float32(rules.presence_penalty) + np.float32(rules.frequency_penalty) * times
        if rules.no_repeat_ngram:
            logits[self._forbidden(rules.no_repeat_ngram)] = -np.inf
        if self._banned is not None:
            for ids in self._banned.forbidden():
                logits[ids] = -np.inf
        if self._end is not None and self._counts.total() < rules.min_tokens:
            logits[self._end] = -np.inf
        if (rules.no_repeat_ngram or rules.min_tokens or rules.ban_words) and logits.max() == -np.inf:
            raise NoTokenLeftError
        return logits

    def _forbidden(self, size: int) -> list[int]:
        """Returns the ids that followed an earlier occurrence of the last `size` - 1 ids."""
        ids = self._ids
        start = len(ids) - size + 1
        if start < 0:
            return []
        last = ids[start:]
        return [ids[i + size - 1] for i in range(start) if ids[i : i + size - 1] == last]

    def chose(self, token: int) -> None:
        """Remembers an id that was written."""
        self._ids.append(token)
        self._seen[token] = None
        self._counts[token] += 1
        if self._banned is not None:
            self._banned.chose(token)
