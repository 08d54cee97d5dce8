"""Units in which a model's prediction of a text is measured."""

from __future__ import annotations

import math


def bits_per_byte(nats: float, tokens: int, bytes_per_token: float) -> float:
    """Converts a negative log-likelihood to bits per byte, which compares models of different vocabularies.

    Args:
        nats: Total negative log-likelihood of all predictions, in nats.
        tokens: Number of predictions.
        bytes_per_token: Mean number of UTF-8 bytes of text for one token.

    Returns:
        Bits per UTF-8 byte of text.
    """
    return nats / math.log(2) / (tokens * bytes_per_token)


def shown_bits(bits_per_byte: float) -> str:
    """Returns bits per byte as people see them, with four decimals.

    It is rounded to five decimals first, as in records, so that a figure and its copy in a record look alike.
    """
    return f"{round(bits_per_byte, 5):.4f}"
