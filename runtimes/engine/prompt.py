"""Turns a prompt into the ids that a model reads: the token that begins every story, and the ids of the prompt."""

from __future__ import annotations

from collections.abc import Sequence

from runtimes.engine.story import slide
from runtimes.types import as_ids, check_prompt
from slm.console.errors import SlmxError, UsageError
from slm.tokenizers.tokenizer import Tokenizer, check_id


class PromptTooLongError(SlmxError):
    """A prompt does not fit into the context.

    Args:
        length: How long the prompt is, as a clause.
        block_size: Positions in the model's context.

    Attributes:
        what: What is wrong, without what to do next, which differs between the command line and a request.
    """

    def __init__(self, length: str, block_size: int) -> None:
        self.what = f"the prompt is {length}, the context holds {block_size:,} tokens"
        super().__init__(f'{self.what}; shorten it, or set on_full to "slide" (--on-full slide)')


def read_prompt(
    tokenizer: Tokenizer, prompt: str | Sequence[int], block_size: int, on_full: str, allow_special: bool
) -> list[int]:
    """Returns the token that begins every story, followed by the ids of a prompt.

    Args:
        tokenizer: The tokenizer of the model.
        prompt: A text, or ids. Ids may begin with the token that begins a story.
        block_size: Positions in the model's context.
        on_full: "slide" keeps the beginning and the end of a prompt that is longer than the context.
        allow_special: Whether special tokens in a text have their own ids.

    Raises:
        UsageError: The prompt is neither a text nor a list of whole numbers from 0 on.
        PromptTooLongError: The prompt is longer than the context.
        SlmxError: The text is not valid Unicode, or the vocabulary lacks an id.
    """
    if isinstance(prompt, bytes) or not isinstance(prompt, Sequence):
        raise UsageError(f"the prompt must be a text (str), not {type(prompt).__name__}")
    if isinstance(prompt, str):
        size = check_prompt(prompt)
        # A text with more bytes than `longest` has more than block_size tokens. It is never encoded as a whole.
        longest = block_size * tokenizer.longest_token
        if size > longest and on_full != "slide":
            raise PromptTooLongError(f"far too long ({size:,} bytes)", block_size)
        if size > 2 * longest:
            head, tail = (tokenizer.encode(part, allow_special) for part in (prompt[:longest], prompt[-longest:]))
            return slide([tokenizer.begin, *head], tail, block_size)
        ids = [tokenizer.begin, *tokenizer.encode(prompt, allow_special)]
    else:
        ids = _checked(tokenizer, prompt)
    if len(ids) <= block_size:
        return ids
    if on_full != "slide":
        raise PromptTooLongError(f"{len(ids):,} tokens long with its start token", block_size)
    return slide(ids, [], block_size)


def _checked(tokenizer: Tokenizer, prompt: Sequence[int]) -> list[int]:
    """Returns ids with the token that begins every story in front of them."""
    ids = list(as_ids("prompt", prompt))
    check_id(max(ids, default=0), tokenizer.vocab_size, "prompt")
    return ids if ids[:1] == [tokenizer.begin] else [tokenizer.begin, *ids]
