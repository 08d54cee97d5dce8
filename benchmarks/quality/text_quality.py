"""What the sides lose on a text, and what the float model makes of it: bits per byte, perplexity, BLEU."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.run.runners import TORCH_SIDES
from benchmarks.run.targets import Subject
from export.checks.fidelity import measure_fidelity
from export.checks.float_model import MAX_COMPARED_LOGITS, FloatModel, eval_text
from export.checks.gates import GATES
from export.checks.parity import greedy_tokens
from export.checks.torch_session import float_session, open_session
from runtimes.bundle.store import Bundle
from runtimes.engine.session import Session
from slm.data.sources import read_stories
from slm.tokenizer import Tokenizer

# Stories whose second halves are written again for BLEU, and the least half that says anything.
CONTINUED = 50
LEAST_HALF = 8


@dataclass(frozen=True)
class TextQuality:
    """The float model's figures on a text, and by side its bits per byte and its loss relative to the float model's.

    `loss` is known for sides that are the float model up to rounding too, whose bits per byte nobody measured.
    """

    bits_per_byte: float | None = None
    perplexity: float | None = None
    bleu: float | None = None
    side_bits: dict[str, float] | None = None
    loss: dict[str, float] | None = None


def judged(subject: Subject, sides: Iterable[str], text: Path) -> TextQuality:
    """Read a text with the float model and each side of ours; SlmxError for one that is unusable or too short.

    A side that decodes otherwise than it reads (int8, int4) is read both ways, and the worse counts.
    """
    model, tokenizer = subject.checkpoint.model, subject.checkpoint.tokenizer
    read = eval_text(model, tokenizer, text)
    float_model = FloatModel(model, read)
    nats = float_model.float_bits_per_byte * math.log(2) * float_model.reference.bytes_per_token
    bits, loss = {}, {}
    for side in sides:
        if side in TORCH_SIDES:
            bits[side], loss[side] = float_model.float_bits_per_byte, 0.0
            continue
        session = open_session(side, subject.path(side), subject.config, trusted=True)
        ways = (False, True) if GATES[side].decode else (False,)
        found = [measure_fidelity(session, float_model.reference, float_model.float_bits_per_byte, way) for way in ways]
        worst = max(found, key=lambda quality: quality.bpb_increase)
        bits[side], loss[side] = worst.bits_per_byte, worst.bpb_increase
    return TextQuality(float_model.float_bits_per_byte, math.exp(nats), bleu(subject, text), bits, loss)


def bleu(subject: Subject, text: Path) -> float | None:
    """Corpus BLEU of greedy continuations: half of each of the first stories as the prompt, the rest as reference.

    The reference ends where the context does. None when no story is long enough.
    """
    from sacrebleu import corpus_bleu

    tokenizer, block = subject.checkpoint.tokenizer, subject.config.block_size
    session = _quick_session(subject)
    written, references = [], []
    for _, story in zip(range(CONTINUED), read_stories([text]), strict=False):
        ids = [tokenizer.end_of_text, *tokenizer.encode(story)][:block]
        half = len(ids) // 2
        if half < LEAST_HALF:
            continue
        written.append(_until_end(greedy_tokens(session, ids[:half], len(ids) - half), tokenizer))
        references.append(tokenizer.decode(ids[half:]))
    return float(corpus_bleu(written, [references]).score) if written else None


def _quick_session(subject: Subject) -> Session:
    """The float model by its fp32 variant, which writes the same ids quicker, or by PyTorch."""
    if "fp32" in subject.bundle.manifest["variants"]:
        return Session.open(subject.path("fp32"), subject.config)
    return float_session(subject.checkpoint.model)


def _until_end(ids: list[int], tokenizer: Tokenizer) -> str:
    end = ids.index(tokenizer.end_of_text) if tokenizer.end_of_text in ids else len(ids)
    return tokenizer.decode(ids[:end])


def from_manifest(bundle: Bundle) -> TextQuality:
    """What the bundle's own manifest says of its variants, on the text that its export judged them on."""
    bits: dict[str, float] = {}
    loss: dict[str, float] = dict.fromkeys(TORCH_SIDES, 0.0)
    float_bits: float | None = None
    for name, entry in bundle.manifest["variants"].items():
        quality: dict[str, Any] | None = entry.get("quality")
        if quality is None:
            loss[name] = 0.0
            continue
        ways = [way for way in (quality["windows"], quality["decode"]) if way is not None]
        worst = max(ways, key=_bpb_increase)
        bits[name], loss[name] = float(worst["bits_per_byte"]), _bpb_increase(worst)
        float_bits = float(quality["float_bits_per_byte"])
    return TextQuality(float_bits, side_bits=bits, loss=loss)


def _bpb_increase(way: dict[str, Any]) -> float:
    """Returns the relative rise in bits per byte; manifests of slmx before 0.1.0 name it `loss`."""
    return float(way["bpb_increase"] if "bpb_increase" in way else way["loss"])


def judged_part(text: Path) -> str:
    """What of a text `judged` reads, in words."""
    size = 8000
    tokens = MAX_COMPARED_LOGITS // size
    return f"the beginning of {text.name}: {tokens:,} tokens at a vocabulary of {size:,}, fewer at more"


def judged_on(bundle: Bundle) -> str:
    """The text of `from_manifest`, in words."""
    return f"as the bundle's manifest says: {bundle.manifest['judged_on']['text']}"
