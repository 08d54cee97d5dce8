"""A check for Schemathesis: only a rule that the schema of a field cannot state refuses what the description allows.

Schemathesis loads this file (SCHEMATHESIS_HOOKS).
"""

from __future__ import annotations

import re

import schemathesis
from schemathesis.generation import GenerationMode

# Rules between fields, of the letters of a word, of the vocabulary and of the context.
RULES = re.compile(
    "stream_options is for streams only"
    "|max_tokens 0 writes nothing"
    "|n must be 1 if max_tokens is 0"
    "|echo with logprobs scores a whole prompt"
    "|max_tokens is the older name of max_completion_tokens, and they differ"
    "|top_logprobs is for log-probabilities only"
    "|min_tokens must be at most max_tokens"
    "|ban_words: a banned word (holds only letters|must have a letter)"
    "|no token has the id"
    "|the context holds"
    "|stories and scores in one request"
)


@schemathesis.check
def refused_by_a_rule(ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case) -> None:
    """Fails if a request that the description allows is refused by another rule."""
    if response.status_code != 400 or case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE:
        return
    message = response.json()["error"]["message"]
    if RULES.search(message) is None:
        raise AssertionError(f"the description allows it, and the server refuses: {message}")
