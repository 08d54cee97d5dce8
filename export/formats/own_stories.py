"""Stories that the float model samples, for what an export needs of a text."""

from __future__ import annotations

from slm.console.errors import SlmxError
from slm.model import GPT
from slm.storage.read_errors import reason_of
from slm.tokenizers.tokenizer import Tokenizer
from slm.train.sample_text import sample_stories


def own_stories(model: GPT, tokenizer: Tokenizer, seed: int, count: int, advice: str) -> list[str]:
    """Samples stories from the float model at temperature 1.

    Args:
        model: The float model.
        tokenizer: Its tokenizer.
        seed: Decides the stories.
        count: The number of stories.
        advice: What to do if the model cannot write them, for the message.

    Raises:
        SlmxError: The model cannot write stories.
    """
    try:
        return sample_stories(model, tokenizer, seed, count)
    except RuntimeError as error:  # torch.multinomial refuses probabilities that are NaN.
        raise SlmxError(f"the float model cannot write stories ({reason_of(error)}); {advice}") from error
