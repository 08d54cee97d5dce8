"""What each variant loses against the float model, measured before anything is published."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from export.checks.fidelity import FloatArray, Reference, measure_fidelity
from runtimes.bundle.figures import Comparison
from runtimes.engine.session import Session, default_threads
from slm.data.corpus import TokenStream, encode_stories
from slm.data.sources import read_stories
from slm.model import GPT
from slm.tokenizer import Tokenizer
from slm.train.sample_text import sample_stories

# Logits compared, so that a large vocabulary is judged in the time of a small one: 16,384 tokens of 8,000.
MAX_COMPARED_LOGITS = 131_072_000


@dataclass(frozen=True)
class EvalText:
    """The text that variants are judged on, and where it came from."""

    stream: TokenStream
    source: str


def eval_text(model: GPT, tokenizer: Tokenizer, path: Path | None, seed: int = 0) -> EvalText:
    """The stories of a file or, without one, stories sampled from the float model itself (temperature 1)."""
    # PyTorch's threads wait for each other, many times over when the machine is shared; small models need one.
    torch.set_num_threads(default_threads(model.config))
    if path is not None:
        return EvalText(encode_stories(list(read_stories([path])), tokenizer), path.name)
    stories = sample_stories(model, tokenizer, seed)
    return EvalText(
        encode_stories(stories, tokenizer), f"{len(stories)} stories sampled from the float model, seed {seed}"
    )


class FloatModel:
    """Holds the text, and the float model's reading of it, that every quantized variant is compared with."""

    def __init__(self, model: GPT, text: EvalText, max_tokens: int | None = None) -> None:
        self.text = text
        self.model = model
        inputs, targets = text.stream.windows(model.config.block_size)
        tokens = max_tokens or MAX_COMPARED_LOGITS // model.config.vocab_size
        keep = max(1, tokens // model.config.block_size)
        self.reference = Reference(inputs[:keep], targets[:keep], self._float, text.stream.bytes_per_token)
        self.float_bits_per_byte = self.reference.bits_per_byte(self.reference.nats())

    @property
    def tokens(self) -> int:
        """Number of predictions judged."""
        return int(self.reference.targets.size)

    @torch.inference_mode()
    def _float(self, row: int) -> FloatArray:
        logits: FloatArray = self.model(torch.from_numpy(self.reference.inputs[row : row + 1]))[0].numpy()
        return logits

    def shortened(self, max_tokens: int) -> FloatModel:
        """A comparison on the first part of the text only, for searches."""
        return FloatModel(self.model, self.text, max_tokens)

    def compare(self, path: Path, decode: bool = True) -> Comparison:
        """Read the text with a variant: in whole windows and, with `decode`, token by token too."""
        session = Session.open(path, self.model.config)
        ways = [
            measure_fidelity(session, self.reference, self.float_bits_per_byte, way)
            for way in ((False, True) if decode else (False,))
        ]
        return Comparison(self.float_bits_per_byte, ways[0], ways[1] if decode else None)
