"""The model card: README.md of a bundle, written from its manifest and training record."""

from __future__ import annotations

from typing import Any

from export.card_header import card_header
from export.interop.registry import GENAI_FILE, fits_optimum
from runtimes.bundle.manifest import Manifest
from runtimes.bundle.summary import HEADINGS, variant_rows
from runtimes.bundle.variants import VARIANTS
from slm.console.counted import counted
from slm.console.markdown import as_markdown
from slm.provenance import is_imported, teachers_of, tokens_seen
from slm.train.qat import trained_for


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
    trained_here = "imported" not in record
    use = "The model writes short, simple stories and knows nothing else; it invents, and it was not filtered."
    before = ""
    if is_imported(record):
        where = "elsewhere first" if trained_here else "elsewhere"
        use = f"The model was trained {where}; its source says what it is for. It invents, and slmx did not filter it."
        before = ", after the training of its source"
    plan, done = record.get("plan") or {}, record.get("steps_done")
    seed, reached = plan.get("seed", "unknown"), best.get("bits_per_byte", "not recorded")
    rows = [
        f"| trained on | {tokens_seen(record):,} tokens, seed {seed}{before} |",
        f"| validation at training | {reached} bits per byte |",
    ]
    if done is not None and "steps" in plan:
        rows.insert(1, f"| step of the checkpoint | {done:,} of {plan['steps']:,} planned |")
    if (variant := trained_for(record)) is not None:
        rows.append(f"| trained for | {variant}, in which the validation was read |")
    if teachers := teachers_of(record):
        names = as_markdown(", ".join(teachers))
        rows.append(f"| teachers (it learned their predictions) | {names} |")
    training = "\n".join(rows) + "\n" if trained_here else ""
    table = "\n".join(f"| {' | '.join(row)} |" for row in variant_rows(manifest))
    layers, heads = counted(shape.n_layer, "layer"), counted(shape.n_head, "head")
    title = f"slmx {manifest.preset}" if manifest.name is None else as_markdown(manifest.name)
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

{_other_runtimes(manifest)}{use}
"""


def _other_runtimes(manifest: Manifest) -> str:
    """Returns the line about other programs that can run the folder; "" if none can."""
    shape, names = manifest.shape, []
    if fits_optimum(shape) and any(VARIANTS[name].is_onnx for name in manifest.variants):
        names.append("for Hugging Face optimum (`ORTModelForCausalLM`)")
    if GENAI_FILE in manifest.files:
        names.append("for onnxruntime-genai")
    return f"The folder is also one {' and '.join(names)}.\n" if names else ""
