"""The model card: README.md of a bundle, written from its manifest and training record."""

from __future__ import annotations

from typing import Any

from runtimes.bundle.manifest import Manifest
from runtimes.bundle.summary import variant_rows


def model_card(manifest: Manifest, record: dict[str, Any]) -> str:
    """Returns the model card as Markdown: what the model is, its data and licence, its figures, how to run it.

    Args:
        manifest: The manifest of the bundle. Only the entry of the model card may be missing.
        record: The training record of the checkpoint.
    """
    shape, judged_on = manifest.shape, manifest.judged_on
    best = record.get("best") or {}
    # Training records of data sets in format 1 name the split `side`.
    sources = [f"{item['file']} ({item.get('split') or item.get('side')})" for item in record.get("data", [])]
    data = ", ".join(sources) or "not recorded"
    trained = f"{record.get('tokens_seen', 0):,} tokens"
    table = "\n".join(f"| {' | '.join(row)} |" for row in variant_rows(manifest))
    weights = "Random weights, for benchmarks only.\n\n" if manifest.checkpoint.untrained else ""
    return f"""# slmx {manifest.preset}

A GPT-2 shaped story model of {shape.parameters:,} parameters: {shape.n_layer} layers, {shape.n_head} heads,
{shape.n_embd} channels, a vocabulary of {shape.vocab_size} tokens and a context of {shape.block_size}.

{weights}| | |
|---|---|
| data | {data} |
| licence of the data | {record.get("licence", "not stated")} |
| trained on | {trained}, seed {record.get("plan", {}).get("seed", "unknown")} |
| validation at training | {best.get("bits_per_byte", "not recorded")} bits per byte |

## Variants

Bits per byte of {judged_on.tokens:,} tokens ({judged_on.text}). The number in brackets is the rise over
the float model. int8 and int4 read the text in two ways, in whole windows and token by token; the way with the larger
rise is shown. "Same" is the share of positions whose likeliest token is the float model's.
The variant that runs by default is {manifest.default}, chosen for the target `{manifest.target}`.

| variant | bytes | against PyTorch | bits per byte |
|---|---|---|---|
{table}

## Run it

With slmx installed (its README says how), in this folder:

    slmx generate "Once upon a time" --bundle .

The folder is also one for Hugging Face optimum (`ORTModelForCausalLM`) and for onnxruntime-genai.
The model writes short, simple stories and knows nothing else; it invents, and it was not filtered.
"""
