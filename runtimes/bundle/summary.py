"""Formats the figures of variants as rows of tables."""

from __future__ import annotations

from collections.abc import Mapping

from runtimes.bundle.figures import Figures
from runtimes.bundle.manifest import Manifest


def variant_rows(manifest: Manifest, figures: Mapping[str, Figures] | None = None) -> list[tuple[str, str, str, str]]:
    """Returns one row for each variant: name, bytes, parity or KL to the float model, bits per byte with their rise.

    Of the two ways in which a quantized variant was read, the one with the larger rise is shown.

    Args:
        manifest: The manifest, which lists the size of each file.
        figures: The figures of the variants to show; None shows those of the manifest.
    """
    if figures is None:
        figures = {name: entry.figures for name, entry in manifest.variants.items()}
    rows = []
    for name, found in figures.items():
        size = f"{manifest.files[manifest.variants[name].file].bytes:,}"
        if found.quality is not None:
            worst = found.quality.worst
            against = f"KL {worst.kl:.1e} nats, {worst.greedy_agreement:.1%} same"
            increase = round(worst.bpb_increase, 4) + 0.0  # -0.0 would be printed as -0.00%
            bits = f"{worst.bits_per_byte:.4f} ({increase:+.2%})"
        else:
            against = "not measured" if found.parity is None else f"largest logit difference {found.parity:.1e}"
            bits = "as fp32" if found.bits_per_byte is None else f"{found.bits_per_byte:.4f}"
        rows.append((name, size, against, bits))
    return rows


def variant_lines(manifest: Manifest, figures: Mapping[str, Figures] | None = None) -> list[str]:
    """Returns the rows as aligned lines of text, with a heading; arguments as in `variant_rows`."""
    row = "{:<12} {:>12}  {:<33} {}"
    rows = [("variant", "bytes", "against PyTorch", "bits per byte"), *variant_rows(manifest, figures)]
    return [row.format(*cells) for cells in rows]
