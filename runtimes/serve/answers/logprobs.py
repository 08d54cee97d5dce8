"""Log-probabilities of tokens in the two shapes of OpenAI's interface."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from runtimes.engine.logprobs import LEAST_LOGPROB
from slm.tokenizers.tokenizer import Tokenizer


class Scored(NamedTuple):
    """A token with its log-probability, which the first token of a text does not have, and the most likely ones."""

    token: int
    logprob: float | None
    top: dict[int, float]


def scored(ids: Sequence[int], logprobs: Sequence[float], top: Sequence[dict[int, float]]) -> list[Scored]:
    """Returns tokens with their log-probabilities. `top` is empty if no most likely tokens were asked for."""
    return [Scored(*row) for row in zip(ids, logprobs, top or [{}] * len(ids), strict=True)]


@dataclass
class TokenTexts:
    """Shows tokens as text.

    Attributes:
        tokenizer: The tokenizer of the model.
        names: The special tokens by their ids.
    """

    tokenizer: Tokenizer
    names: dict[int, str] = field(init=False)

    def __post_init__(self) -> None:
        self.names = {token: name for name, token in self.tokenizer.specials.items()}

    def show(self, token: int) -> str:
        """Returns the text of a token. Bytes that are no whole characters are shown as OpenAI does: `bytes:\\xe2`."""
        if token in self.names:
            return self.names[token]
        content = self.tokenizer.token_bytes(token)
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)


class CompletionLogprobs:
    """The log-probabilities of one choice of `/v1/completions`, in one piece or in several.

    Args:
        texts: Shows tokens.
        drop_space: Whether the text leaves out a space at the start of its first token.
    """

    def __init__(self, texts: TokenTexts, drop_space: bool) -> None:
        self._texts = texts
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._offset = 0
        self._drop_space = drop_space

    def add(self, tokens: Iterable[Scored]) -> dict[str, Any]:
        """Returns the next tokens. `text_offset` is where each begins in the text of the choice, in characters."""
        found: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for token, logprob, top in tokens:
            shown = self._texts.show(token)
            found["tokens"].append(shown)
            found["token_logprobs"].append(None if logprob is None else finite(logprob))
            found["top_logprobs"].append(None if logprob is None else self._most_likely(shown, logprob, top))
            content = self._texts.tokenizer.token_bytes(token)
            if self._drop_space and content:
                self._drop_space, content = False, content.removeprefix(b" ")
            found["text_offset"].append(self._advance(content))
        return found

    def _advance(self, content: bytes) -> int:
        """Adds the bytes of a token, and returns where its text begins: after a character that it leaves incomplete."""
        incomplete, _ = self._decoder.getstate()
        text, begin = self._decoder.decode(content), self._offset
        self._offset += len(text)
        alone = content.decode("utf-8", "replace")
        return begin + len(text) - len(alone) if incomplete and text.endswith(alone) else begin

    def _most_likely(self, shown: str, logprob: float, top: dict[int, float]) -> dict[str, float]:
        """Returns the most likely tokens and the token itself. Of tokens that look alike the most likely one counts."""
        likely: dict[str, float] = {}
        for token, value in top.items():
            likely.setdefault(self._texts.show(token), finite(value))
        likely.setdefault(shown, finite(logprob))
        return likely


def chat_logprobs(texts: TokenTexts, tokens: Iterable[Scored]) -> dict[str, Any]:
    """Returns the log-probabilities of tokens as `/v1/chat/completions` has them."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        content = list(texts.tokenizer.token_bytes(token))
        return {"token": texts.show(token), "logprob": finite(logprob), "bytes": content}

    content = [
        entry(token, logprob or 0.0) | {"top_logprobs": [entry(*likely) for likely in top.items()]}
        for token, logprob, top in tokens
    ]
    return {"content": content, "refusal": None}


def finite(logprob: float) -> float:
    """Returns a log-probability that JSON can hold."""
    return max(logprob, LEAST_LOGPROB)
