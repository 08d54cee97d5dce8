"""What was written so far changes the logits of the next id, before temperature and the draw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from slm.errors import SlmxError

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LogitsRules:
    """Which of them apply, in this order; the defaults are all off.

    `logit_bias` adds to the logits of ids. `repetition_penalty` divides positive logits of ids in the prompt and the
    text and multiplies negative ones (Keskar et al. 2019). `presence_penalty` is taken from ids in the text,
    `frequency_penalty` once for each time they are there (OpenAI's definitions). `no_repeat_ngram` n forbids the ids
    that would write the same n ids again. `min_tokens` forbids the end before that many. Raises SlmxError when a
    value is outside its range.
    """

    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    no_repeat_ngram: int = 0
    min_tokens: int = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0.0 < self.repetition_penalty < float("inf"):
            raise SlmxError(f"repetition penalty must be above 0 (1 is off), not {self.repetition_penalty}")
        for name in ("presence_penalty", "frequency_penalty"):
            value = getattr(self, name)
            if not abs(value) < float("inf"):
                raise SlmxError(f"{name.replace('_', ' ')} must be a number (0 is off), not {value}")
        if self.no_repeat_ngram < 0:
            raise SlmxError(f"no-repeat n-gram must be 0 (off) or more, not {self.no_repeat_ngram}")
        if self.min_tokens < 0:
            raise SlmxError(f"min tokens must be 0 (off) or more, not {self.min_tokens}")
        for token, value in self.logit_bias.items():
            if token < 0 or not abs(value) < float("inf"):
                raise SlmxError(f"logit bias must be an id and a number, not {token}={value}")

    @property
    def active(self) -> bool:
        """Whether any of them changes anything."""
        return self != LogitsRules()


class Penalties:
    """The rules at work on one sequence: call it with logits, tell it what was chosen."""

    def __init__(self, rules: LogitsRules, prompt: Iterable[int], end: int | None) -> None:
        self.rules = rules
        self._end = end
        self._ids = list(prompt)
        self._seen = dict.fromkeys(self._ids)
        self._counts: Counter[int] = Counter()
        self._bias_ids = np.array([*rules.logit_bias], np.intp)
        self._bias = np.array([*rules.logit_bias.values()], np.float32)

    def __call__(self, logits: FloatArray) -> FloatArray:
        """A changed copy of logits [vocab]; SlmxError for a bias on an id that is none."""
        rules, logits = self.rules, logits.copy()
        if len(self._bias_ids):
            if self._bias_ids.max() >= len(logits):
                raise SlmxError(f"logit bias: no id {self._bias_ids.max()}; ids go up to {len(logits) - 1}")
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
        if self._end is not None and self._counts.total() < rules.min_tokens:
            logits[self._end] = -np.inf
        return logits

    def _forbidden(self, size: int) -> list[int]:
        """Ids that once followed the last size - 1 ids."""
        ids = self._ids
        start = len(ids) - size + 1
        if start < 0:
            return []
        last = ids[start:]
        return [ids[i + size - 1] for i in range(start) if ids[i : i + size - 1] == last]

    def chose(self, token: int) -> None:
        """Remember an id that was written."""
        self._ids.append(token)
        self._seen[token] = None
        self._counts[token] += 1
