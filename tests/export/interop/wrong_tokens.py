"""A runtime for tests. It writes the tokens of slmx, but the seventh id of a long prompt's continuation is another."""

from __future__ import annotations

from pathlib import Path

from export.checks.greedy import greedy_tokens
from export.interop.compare import PROMPTS
from export.interop.registry import Greedy
from runtimes.bundle.store import Bundle
from runtimes.engine.session import Session

PLACE = 7


def open_variant(bundle: Bundle, variant: str, folder: Path) -> Greedy:
    session, tokenizer = Session.open(bundle.model_bytes(variant), bundle.config), bundle.tokenizer()
    second = [tokenizer.end_of_text, *tokenizer.encode(PROMPTS[1])]

    def greedy(prompt: list[int], new_tokens: int) -> list[int]:
        ids = greedy_tokens(session, prompt, new_tokens)
        if prompt == second:
            ids[PLACE - 1] = (ids[PLACE - 1] + 1) % bundle.config.vocab_size
        return ids

    return greedy
