"""What each variant loses against the float model, measured before anything is published."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from export.graph import cache_names
from export.quality import FloatArray, Quality, Reading, measure_quality
from runtimes.session import Session, open_onnx
from slm.corpus import TokenStream, encode_stories
from slm.errors import SlmxError
from slm.model import GPT, KVCache, generate_greedy
from slm.presets import GPTConfig
from slm.sampling import sample_stories
from slm.sources import read_stories
from slm.tokenizer import Tokenizer

PARITY_LIMIT = 1e-4
INT8_LOSS_LIMIT = 0.01
GREEDY_TOKENS = 48
JUDGED_TOKENS = 16384


@dataclass(frozen=True)
class EvalText:
    """The text that variants are judged on, and where it came from."""

    stream: TokenStream
    source: str


@dataclass(frozen=True)
class Verdict:
    """A quantized variant against the float model: read in whole windows, and token by token as in decoding."""

    float_bits_per_byte: float
    windows: Quality
    decode: Quality

    @property
    def worst_loss(self) -> float:
        """The larger relative loss in bits per byte of the two ways of reading."""
        return max(self.windows.loss, self.decode.loss)

    def as_dict(self) -> dict[str, object]:
        """For the manifest."""
        return asdict(self)


def eval_text(model: GPT, tokenizer: Tokenizer, path: Path | None, seed: int = 0) -> EvalText:
    """The stories of a file or, without one, stories sampled from the float model itself (temperature 1)."""
    if path is not None:
        return EvalText(encode_stories(list(read_stories([path])), tokenizer), path.name)
    stories = sample_stories(model, tokenizer, seed)
    return EvalText(
        encode_stories(stories, tokenizer), f"{len(stories)} stories sampled from the float model, seed {seed}"
    )


def _parity_cases(config: GPTConfig) -> Iterator[tuple[int, int, int]]:
    """Batch, new and cached tokens: the grid, then the full context at once and its last token.

    GroupQueryAttention takes several tokens behind a filled cache for one sequence only ("batch_size must
    be 1 when sequence_length > 1 and past context is given"), so those cases of the grid have no batch of 3.
    """
    for batch in (1, 3):
        for new in (1, 2, 17):
            for past in (0, 1, 30):
                allowed = batch == 1 or new == 1 or past == 0
                if allowed and past + new < config.block_size:
                    yield batch, new, past
    yield 1, config.block_size, 0
    yield 1, 1, config.block_size - 1


@torch.inference_mode()
def parity(model: GPT, path: Path) -> float:
    """Largest |logit difference| to PyTorch over the grid, the cache growing as separate tensors.

    Also runs the shared cache of our own session; SlmxError if its greedy tokens are not PyTorch's.
    """
    config = model.config
    session = open_onnx(path, threads=1)
    past_names, present_names = cache_names(config.n_layer)
    random = torch.Generator().manual_seed(0)
    worst = 0.0
    for batch, new, past in _parity_cases(config):
        ids = torch.randint(config.vocab_size, (batch, past + new), generator=random)
        cache = KVCache(config, batch)
        empty = np.zeros((batch, config.n_head, 0, config.head_dim), np.float32)
        state = dict.fromkeys(past_names, empty)
        for start, end in ((0, past), (past, past + new)):
            if start == end:
                continue
            expected = model(ids[:, start:end], cache).numpy()
            feed = {
                "input_ids": ids[:, start:end].numpy(),
                "attention_mask": np.ones((batch, end), np.int64),
                "position_ids": np.tile(np.arange(start, end, dtype=np.int64), (batch, 1)),
            }
            logits, *present = session.run(["logits", *present_names], feed | state)
            state = dict(zip(past_names, present, strict=True))
            worst = float(np.maximum(worst, np.abs(logits - expected).max()))
    prompt = ids[0, : min(8, config.block_size // 2)].tolist()
    count = min(GREEDY_TOKENS, config.block_size - len(prompt))
    if greedy_tokens(Session(path, config), prompt, count) != generate_greedy(model, prompt, count):
        raise SlmxError(f"{path.name}: its greedy tokens differ from PyTorch's; not published")
    return worst


def greedy_tokens(session: Session, prompt: list[int], max_tokens: int) -> list[int]:
    """The likeliest ids after a prompt, by a fresh run of a session."""
    session.rewind(0)
    ids = [int(session.prefill(prompt)[-1].argmax())]
    while len(ids) < max_tokens:
        ids.append(int(session.step(ids[-1]).argmax()))
    return ids


class Judge:
    """Holds the text, and the float model's reading of it, that every quantized variant is compared with."""

    def __init__(self, model: GPT, text: EvalText, max_tokens: int = JUDGED_TOKENS) -> None:
        self.text = text
        self._model = model
        inputs, targets = text.stream.windows(model.config.block_size)
        keep = max(1, max_tokens // model.config.block_size)
        self.reading = Reading(inputs[:keep], targets[:keep], self._float, text.stream.bytes_per_token)
        self.float_bits_per_byte = self.reading.bits_per_byte(self.reading.reference_nats())

    @property
    def tokens(self) -> int:
        """Number of predictions judged."""
        return int(self.reading.targets.size)

    @torch.inference_mode()
    def _float(self, row: int) -> FloatArray:
        logits: FloatArray = self._model(torch.from_numpy(self.reading.inputs[row : row + 1]))[0].numpy()
        return logits

    def windows(self, path: Path) -> Quality:
        """Read the text with a variant in whole windows."""
        return measure_quality(Session(path, self._model.config), self.reading, self.float_bits_per_byte, decode=False)

    def verdict(self, path: Path) -> Verdict:
        """Read the text with a variant, both ways."""
        session = Session(path, self._model.config)
        windows, decode = (
            measure_quality(session, self.reading, self.float_bits_per_byte, decode) for decode in (False, True)
        )
        return Verdict(self.float_bits_per_byte, windows, decode)
