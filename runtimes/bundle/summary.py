"""What a bundle's manifest says of its variants, as rows for tables."""

from __future__ import annotations

from typing import Any


def variant_rows(manifest: dict[str, Any], variants: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """One row a variant for tables: name, bytes, parity or KL to float, bits per byte with its loss."""
    rows = []
    for name, entry in variants.items():
        size = f"{manifest['files'][entry['file']]['bytes']:,}"
        if "quality" in entry:
            ways = [way for way in (entry["quality"]["windows"], entry["quality"]["decode"]) if way is not None]
            loss = max(way["bpb_increase"] if "bpb_increase" in way else way["loss"] for way in ways)
            against = f"KL {ways[-1]['kl']:.1e} nats, {ways[-1]['greedy_agreement']:.1%} same"
            rows.append((name, size, against, f"{ways[-1]['bits_per_byte']:.4f} ({loss:+.2%})"))
        else:
            against = f"largest logit difference {entry['parity']:.1e}"
            rows.append(
                (name, size, against, f"{entry['bits_per_byte']:.4f}" if "bits_per_byte" in entry else "as fp32")
            )
    return rows


def variant_lines(manifest: dict[str, Any], variants: dict[str, Any]) -> list[str]:
    """The rows as aligned lines of text, with a heading."""
    row = "{:<12} {:>12}  {:<33} {}"
    rows = [("variant", "bytes", "against PyTorch", "bits per byte"), *variant_rows(manifest, variants)]
    return [row.format(*cells) for cells in rows]
