"""The float model that every variant is compared with, and the text on which they are compared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from export.checks.fidelity import Reference, measure_fidelity
from export.formats.own_stories import own_stories
from runtimes.bundle.figures import Comparison
from runtimes.engine.arrays import FloatArray
from runtimes.engine.session import Session, float_threads
from slm.console.counted import count_stories
from slm.console.errors import SlmxError
from slm.data.corpus import TokenStream, encode_stories
from slm.data.sources import read_stories
from slm.model import GPT
from slm.tokenizers.tokenizer import Tokenizer

# The limit counts logits, so a large vocabulary takes as long as a small one. It is 16,384 tokens for 8,000 ids.
MAX_COMPARED_LOGITS = 131_072_000
STORIES, SEED = 64, 0  # of the text that the float model samples


@dataclass(frozen=True)
class EvalText:
    """The text that variants are compared on, and a description of its origin."""

    stream: TokenStream
    source: str


def check_finite(model: GPT, source: str) -> None:
    """Refuses a model that cannot be exported because it computes NaN or infinity.

    Args:
        model: The float model. Its weights are finite, as `read_tensors` demands.
        source: Where the model came from, for error messages.

    Raises:
        SlmxError: A logit for one context of ids from the whole vocabulary is NaN or infinite.
    """
    ids = torch.linspace(0, model.config.vocab_size - 1, model.config.block_size).long()
    with torch.inference_mode():
        logits = model(ids[None])
    if not bool(logits.isfinite().all()):
        raise SlmxError(
            f"{source}: the model computes logits that are NaN or infinite; its training diverged: export an earlier "
            "checkpoint (--checkpoint DIR) or train again"
        )


def eval_text(model: GPT, tokenizer: Tokenizer, path: Path | None) -> EvalText:
    """Reads the stories of a file or, without one, samples stories from the float model itself at temperature 1.

    It also sets PyTorch's number of threads for this process to what a session of the model would use.

    Args:
        model: The float model.
        tokenizer: Its tokenizer.
        path: A text or table of stories, or None.

    Raises:
        SlmxError: The file cannot be read, or the model cannot write stories.
    """
    # PyTorch's threads wait for each other. On a shared machine this takes many times as long. Small models need one.
    torch.set_num_threads(float_threads(model.config))
    if path is not None:
        return EvalText(encode_stories(list(read_stories([path])), tokenizer), path.name)
    stories = own_stories(model, tokenizer, SEED, STORIES, "compare on a text of your own: --text FILE")
    return EvalText(
        encode_stories(stories, tokenizer), f"{count_stories(STORIES)} sampled from the float model, seed {SEED}"
    )


class FloatModel:
    """The float model and its logits for a text, to compare variants with. Not thread-safe.

    Attributes:
        text: The text.
        model: The float model.
        reference: The windows of the text that are read, and the model's logits for them.
        float_bits_per_byte: The float model's bits per byte of those windows.
    """

    def __init__(self, model: GPT, text: EvalText, max_tokens: int | None = None) -> None:
        """Reads the first `max_tokens` of the text, at least one window. None reads what `MAX_COMPARED_LOGITS` allows.

        Raises:
            SlmxError: The text is shorter than one context, or the logits are NaN or infinite.
        """
        self.text = text
        self.model = model
        inputs, targets = text.stream.windows(model.config.block_size)
        tokens = max_tokens or MAX_COMPARED_LOGITS // model.config.vocab_size
        keep = max(1, tokens // model.config.block_size)
        self.reference = Reference(inputs[:keep], targets[:keep], self._logits, text.stream.bytes_per_token)
        self.float_bits_per_byte = self.reference.bits_per_byte(self.reference.nats())
        if not math.isfinite(self.float_bits_per_byte):
            raise SlmxError(
                f"the float model's logits for {text.source} are NaN or infinite: export another checkpoint"
            )

    @property
    def tokens(self) -> int:
        """The number of predictions compared."""
        return int(self.reference.targets.size)

    @torch.inference_mode()
    def _logits(self, window: int) -> FloatArray:
        logits: FloatArray = self.model(torch.from_numpy(self.reference.inputs[window : window + 1]))[0].numpy()
        return logits

    def shortened(self, max_tokens: int) -> FloatModel:
        """Returns the same model on the first part of the text only, for searches."""
        return FloatModel(self.model, self.text, max_tokens)

    def compare(self, file: Path | bytes, decode: bool = True, name: str = "the variant") -> Comparison:
        """Reads the text with an ONNX file or its content, in whole windows and, with `decode`, also token by token.

        Args:
            file: The file, or its content.
            decode: Whether to read token by token too.
            name: The variant, for an error.

        Returns:
            The differences from the float model.

        Raises:
            SlmxError: The file cannot be opened, or its logits are NaN or infinite.
        """
        session = Session.open(file, self.model.config)
        ways = [
            measure_fidelity(session, self.reference, self.float_bits_per_byte, token_by_token, name)
            for token_by_token in ((False, True) if decode else (False,))
        ]
        return Comparison(self.float_bits_per_byte, ways[0], ways[1] if decode else None)
