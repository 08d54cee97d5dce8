"""Greedy decoding with a session, for comparisons. It does not load PyTorch."""

from __future__ import annotations

from runtimes.engine.session import Session


def greedy_tokens(session: Session, prompt: list[int], max_tokens: int) -> list[int]:
    """Continues a prompt with the most likely id at each of `max_tokens` steps, starting from an empty cache."""
    session.reset()
    ids = [int(session.prefill(prompt).argmax())]
    while len(ids) < max_tokens:
        ids.append(int(session.step(ids[-1]).argmax()))
    return ids
