"""Moves a model to the vocabulary of another tokenizer.

A teacher needs the vocabulary of the model that it teaches, and a smaller vocabulary makes a model smaller.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from slm.tokenizers.tokenizer import Tokenizer, is_text


@dataclass(frozen=True)
class Move:
    """How a table of the model's own tokens becomes a table of other tokens.

    Attributes:
        parts: For each id of the new tokenizer, the ids of the model's own tokens that its row is the mean of. If there
            are none, it is the mean of the whole table.
        whole: How many of the new ordinary tokens are one token of the model.
    """

    parts: list[list[int]]
    whole: int

    @classmethod
    def between(cls, own: Tokenizer, new: Tokenizer) -> Move:
        """Finds the parts of each new token.

        A new token with the bytes of one own token gets the row of that token. Another token gets the rows of the
        tokens that the model's own tokenizer makes of its text, or, if its bytes are not UTF-8, those of its single
        bytes. The tokens that end and begin a text get the rows of the model's own.

        Args:
            own: The tokenizer of the model.
            new: The other tokenizer.
        """
        # SentencePiece has a byte and a character with the same bytes. Text becomes the character, which is later.
        ids = {token: number for number, token in enumerate(own.tokens)}
        # A token can be inside a word, so no space is put before its text.
        bare = Tokenizer(own.tokens, replace(own.settings, prefix="never"))
        parts: list[list[int]] = []
        for token in new.tokens:
            if token in ids:
                parts.append([ids[token]])
            elif is_text(token):
                parts.append(bare.encode(token.decode("utf-8")))
            else:
                parts.append([ids[byte] for byte in (bytes([value]) for value in token) if byte in ids])
        ends = [own.end_of_text, own.begin][: len(new.specials)]
        return cls([*parts, *([row] for row in ends)], sum(token in ids for token in new.tokens))

    def table(self, rows: Tensor) -> Tensor:
        """Returns the table float [new tokens, width] of the new tokens for the model's own, float [tokens, width]."""
        mean = rows.mean(0)
        return torch.stack([rows[ids].mean(0) if ids else mean for ids in self.parts])
