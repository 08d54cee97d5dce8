"""The model card: README.md of a bundle, written from its manifest and training record."""

from __future__ import annotations

from typing import Any


def variant_rows(manifest: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """One row a variant for tables: name, bytes, parity or KL to float, bits per byte with its loss."""
    rows = []
    for name, entry in manifest["variants"].items():
        size = f"{manifest['files'][entry['file']]['bytes']:,}"
        if "parity" in entry:
            rows.append(
                (name, size, f"largest logit difference {entry['parity']:.1e}", f"{entry['bits_per_byte']:.4f}")
            )
        else:
            decode = entry["quality"]["decode"]
            loss = max(entry["quality"]["windows"]["loss"], decode["loss"])
            rows.append((name, size, f"KL {decode['kl']:.1e} nats", f"{decode['bits_per_byte']:.4f} ({loss:+.2%})"))
    return rows


def model_card(manifest: dict[str, Any], record: dict[str, Any]) -> str:
    """Markdown: what the model is, its data and licence, its figures, how to run it."""
    shape = manifest["shape"]
    best = record.get("best") or {}
    data = ", ".join(f"{item['file']} ({item['side']})" for item in record.get("data", [])) or "not recorded"
    trained = f"{record.get('tokens_seen', 0):,} tokens"
    table = "\n".join(f"| {' | '.join(row)} |" for row in variant_rows(manifest))
    return f"""# slmx {manifest["preset"]}

A GPT-2 shaped story model of {manifest["parameters"]:,} parameters: {shape["n_layer"]} layers, {shape["n_head"]} heads,
{shape["n_embd"]} channels, a vocabulary of {shape["vocab_size"]} tokens and a context of {shape["block_size"]}.

| | |
|---|---|
| data | {data} |
| licence of the data | {record.get("licence", "not stated")} |
| trained on | {trained}, seed {record.get("plan", {}).get("seed", "unknown")} |
| validation at training | {best.get("bits_per_byte", "not recorded")} bits per byte |

## Variants

Bits per byte of {manifest["judged_on"]["tokens"]:,} tokens ({manifest["judged_on"]["text"]}),
token by token for int8; in brackets the larger loss against the float model of two ways of reading: whole windows,
and token by token.

| variant | bytes | against PyTorch | bits per byte |
|---|---|---|---|
{table}

## Run it

    pip install slmx
    slmx generate "Once upon a time" --bundle .

The folder is also one for Hugging Face optimum (`ORTModelForCausalLM`) and for onnxruntime-genai.
The model writes short, simple stories and knows nothing else; it invents, and it was not filtered.
"""
