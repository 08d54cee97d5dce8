"""The model card: README.md of a bundle, written from its manifest and training record."""

from __future__ import annotations

import re
from typing import Any

from export.card_header import card_header
from runtimes.bundle.manifest import Manifest
from runtimes.bundle.summary import HEADINGS, variant_rows
from slm.console.counted import counted
from slm.storage.json_reader import MAX_TEXT, as_plain_text
from slm.train.qat import trained_for

# Characters that mean something in Markdown.
_MARKS = re.compile(r"[\\`*_\[\]<>&#|]")


def model_card(manifest: Manifest, record: dict[str, Any]) -> str:
    """Returns the model card as Markdown: what the model is, its data and licence, its figures, how to run it.

    It begins with the header that hubs read.

    Args:
        manifest: The manifest of the bundle. Only the entry of the model card may be missing.
        record: The training record of the checkpoint.
    """
    shape, judged_on = manifest.shape, manifest.judged_on
    best = record.get("best") or {}
    made_from = manifest.checkpoint
    imported = "imported" in record
    use = (
        "The model was trained elsewhere; its source says what it is for. It invents, and slmx did not filter it."
        if imported
        else "The model writes short, simple stories and knows nothing else; it invents, and it was not filtered."
    )
    seed, reached = (record.get("plan") or {}).get("seed", "unknown"), best.get("bits_per_byte", "not recorded")
    rows = [
        f"| trained on | {_tokens_seen(record):,} tokens, seed {seed} |",
        f"| validation at training | {reached} bits per byte |",
    ]
    if (variant := trained_for(record)) is not None:
        rows.append(f"| trained for | {variant}, in which the validation was read |")
    training = "" if imported else "\n".join(rows) + "\n"
    table = "\n".join(f"| {' | '.join(row)} |" for row in variant_rows(manifest))
    layers, heads = counted(shape.n_layer, "layer"), counted(shape.n_head, "head")
    title = f"slmx {manifest.preset}" if manifest.name is None else _MARKS.sub(r"\\\g<0>", manifest.name)
    weights = "Random weights, for benchmarks only.\n\n" if manifest.checkpoint.untrained else ""
    return f"""{card_header(made_from.licence)}

# {title}

A {shape.family} shaped story model of {shape.parameters:,} parameters: {layers}, {heads},
{counted(shape.n_embd, "channel")}, a vocabulary of {shape.vocab_size:,} tokens and a context of {shape.block_size:,}.

{weights}| | |
|---|---|
| source | {made_from.shown_source or "not recorded"} |
| licence of the source | {made_from.licence or "not stated"} |
{training}
## Variants

Bits are bits per byte of {counted(judged_on.tokens, "token")} ({judged_on.text}). The percentage after them is the rise
over the float model. int8, q8 and int4 read the text in two ways: in whole windows, as the others, and token by token,
as in writing. Compare figures of one column. "KL" is the divergence from PyTorch in nats, and "same" is the share of
positions whose likeliest token is the float model's, both in whole windows.
The variant that runs by default is {manifest.default}, chosen for the target `{manifest.target}`.

| {" | ".join(HEADINGS)} |
{"|---" * len(HEADINGS)}|
{table}

## Run it

With slmx installed (its README says how), in this folder:

    slmx generate "Once upon a time" --bundle .

The folder is also one for Hugging Face optimum (`ORTModelForCausalLM`) and for onnxruntime-genai.
{use}
"""


def source_of(record: dict[str, Any]) -> str | None:
    """Returns the texts that a model was trained on, or the model that it was imported from; None if not recorded.

    Args:
        record: The training record of the checkpoint.
    """
    if not record:
        return None
    if isinstance(imported := record.get("imported"), dict):
        parts = [imported.get("name"), imported.get("repository") or imported.get("folder") or imported.get("file")]
        named = ", ".join(str(part) for part in parts if part)
        return _short(f"imported from {named} (a model of type {imported.get('model_type')})")
    # Training records of data sets in format 1 name the split `side`.
    texts = [f"{item['file']} ({item.get('split') or item.get('side')})" for item in record.get("data") or ()]
    own, before = ", ".join(texts), source_of(_origin(record))
    parts = [own, f"before that, {before}" if before and before != own else ""]
    return _short("; ".join(filter(None, parts))) or None


def licence_of(record: dict[str, Any]) -> str | None:
    """Returns the licence that the user stated for the text, or that the imported model states; None for none.

    Args:
        record: The training record of the checkpoint.
    """
    own, before = str(record.get("licence", "not stated")), licence_of(_origin(record)) if record else None
    licences = dict.fromkeys(licence for licence in (own, before) if licence not in (None, "", "not stated"))
    return _short("; ".join(map(str, licences))) or None


def _tokens_seen(record: dict[str, Any]) -> int:
    """Returns the tokens that a model has read, in its training and in those before it."""
    return int(record.get("tokens_seen") or 0) + (_tokens_seen(origin) if (origin := _origin(record)) else 0)


def _origin(record: dict[str, Any]) -> dict[str, Any]:
    """Returns the record of the checkpoint that a model was fine-tuned from; empty if there is none."""
    origin = record.get("init")
    inner = origin.get("record") if isinstance(origin, dict) else None
    return inner if isinstance(inner, dict) else {}


def _short(text: str) -> str:
    # A card holds it in a table of Markdown.
    return as_plain_text(text).replace("|", "/").replace("<", "(").replace(">", ")")[:MAX_TEXT]
