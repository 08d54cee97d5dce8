"""The quality of the float model and of each runner on a text: bits per byte, perplexity, BLEU."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks.report.record import TORCH_RUNNERS
from export.checks.fidelity import measure_fidelity
from export.checks.float_model import MAX_COMPARED_LOGITS, FloatModel, eval_text
from export.checks.greedy import greedy_tokens
from export.checks.torch_session import float_session, open_session
from runtimes.bundle.store import Bundle
from runtimes.engine.arrays import IdArray
from runtimes.engine.session import Session
from slm.checkpoint import Checkpoint
from slm.data.sources import read_stories
from slm.presets import GPTConfig
from slm.tokenizers.tokenizer import Tokenizer

# The number of stories that are continued for BLEU, and the least number of tokens of a prompt.
CONTINUED = 50
LEAST_HALF = 8


@dataclass(frozen=True)
class TextQuality:
    """Figures on a text.

    Attributes:
        bits_per_byte: Bits per byte of the float model.
        perplexity: Perplexity per token of the float model.
        bleu: BLEU of greedy continuations.
        runner_bits_per_byte: Bits per byte by runner.
        runner_bpb_increase: Their increase relative to the float model, by runner. It is 0 for runners that are equal
            to the float model except for rounding, even if their bits per byte were not measured.
    """

    bits_per_byte: float | None = None
    perplexity: float | None = None
    bleu: float | None = None
    runner_bits_per_byte: dict[str, float] = field(default_factory=dict)
    runner_bpb_increase: dict[str, float] = field(default_factory=dict)


class Target(Protocol):
    """The part of `benchmarks.run.targets.Target` that is needed here."""

    @property
    def checkpoint(self) -> Checkpoint:
        """The float model."""

    @property
    def bundle(self) -> Bundle:
        """The variants."""

    @property
    def trusted(self) -> bool:
        """Whether its TorchScript and .pt2 files may be read."""

    @property
    def config(self) -> GPTConfig:
        """The model's shape."""


# Reads windows of ids (inputs, and the id after each) and returns the negative log-likelihood of the latter in nats.
ReadWindows = Callable[[IdArray, IdArray], float | None]


def quality_on(target: Target, runners: Iterable[str], text: Path, peers: Mapping[str, ReadWindows]) -> TextQuality:
    """Measures the quality of the float model, of PyTorch runners and variants, and of peers on a text.

    All read whole windows, as peers do.

    Args:
        target: The model.
        runners: The names of the runners.
        text: A file of stories.
        peers: How to read the text with each peer. A peer that returns None has no figures.

    Raises:
        SlmxError: The text cannot be read or is too short.
    """
    model, tokenizer = target.checkpoint.model, target.checkpoint.tokenizer
    read = eval_text(model, tokenizer, text)
    float_model = FloatModel(model, read)
    nats = float_model.float_bits_per_byte * math.log(2) * float_model.reference.bytes_per_token
    bits, increase = {}, {}
    for runner in runners:
        if runner in TORCH_RUNNERS:
            bits[runner], increase[runner] = float_model.float_bits_per_byte, 0.0
            continue
        session = open_session(runner, target.bundle.model_file(runner), target.config, trusted=target.trusted)
        found = measure_fidelity(session, float_model.reference, float_model.float_bits_per_byte, False, runner)
        bits[runner], increase[runner] = found.bits_per_byte, found.bpb_increase
    for name, peer in peers.items():
        total = peer(float_model.reference.inputs, float_model.reference.targets)
        if total is not None:
            bits[name] = float_model.reference.bits_per_byte(total)
            increase[name] = bits[name] / float_model.float_bits_per_byte - 1
    return TextQuality(float_model.float_bits_per_byte, math.exp(nats), bleu(target, text), bits, increase)


def bleu(target: Target, text: Path) -> float | None:
    """Returns the corpus BLEU of greedy continuations; None if no story is long enough.

    The first half of each of the first stories is the prompt. The rest of it is the reference, as far as it fits the
    context.
    """
    from sacrebleu import corpus_bleu

    tokenizer, block = target.checkpoint.tokenizer, target.config.block_size
    session = _float_session(target)
    written, references = [], []
    for _, story in zip(range(CONTINUED), read_stories([text]), strict=False):
        ids = [tokenizer.begin, *tokenizer.encode(story)][:block]
        half = len(ids) // 2
        if half < LEAST_HALF:
            continue
        written.append(_until_end(greedy_tokens(session, ids[:half], len(ids) - half), tokenizer))
        references.append(tokenizer.decode(ids[half:]))
    return float(corpus_bleu(written, [references]).score) if written else None


def _float_session(target: Target) -> Session:
    """Returns a session of the fp32 variant, which writes the same ids as PyTorch in less time, or else of PyTorch."""
    if "fp32" in target.bundle.manifest.variants:
        return Session.open(target.bundle.model_file("fp32"), target.config)
    return float_session(target.checkpoint.model)


def _until_end(ids: list[int], tokenizer: Tokenizer) -> str:
    end = ids.index(tokenizer.end_of_text) if tokenizer.end_of_text in ids else len(ids)
    return tokenizer.decode(ids[:end])


def from_manifest(bundle: Bundle) -> TextQuality:
    """Returns the figures of the variants in a bundle's manifest, on the text that the export used."""
    bits: dict[str, float] = {}
    increase: dict[str, float] = dict.fromkeys(TORCH_RUNNERS, 0.0)
    float_bits: float | None = None
    for name, entry in bundle.manifest.variants.items():
        quality = entry.figures.quality
        if quality is None:
            increase[name] = 0.0
            continue
        bits[name], increase[name] = quality.windows.bits_per_byte, quality.windows.bpb_increase
        float_bits = quality.float_bits_per_byte
    return TextQuality(float_bits, runner_bits_per_byte=bits, runner_bpb_increase=increase)


def part_read(text: Path) -> str:
    """Returns a description of the part of a text that `quality_on` reads."""
    size = 8000
    tokens = MAX_COMPARED_LOGITS // size
    return f"the beginning of {text.name}: {tokens:,} tokens for a vocabulary of {size:,}, fewer for a larger one"


def text_of_manifest(bundle: Bundle) -> str:
    """Returns a description of the text that the figures of `from_manifest` come from."""
    return f"as the bundle's manifest says: {bundle.manifest.judged_on.text}"
