"""What a bundle holds: the figures of its variants as rows of tables, and everything as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from runtimes.bundle.figures import Fidelity, Figures
from runtimes.bundle.manifest import JudgedOn, Manifest, plain
from runtimes.bundle.variants import VARIANTS
from slm.console.counted import counted

if TYPE_CHECKING:
    from runtimes.bundle.store import Bundle

HEADINGS = ("variant", "bytes", "against PyTorch", "bits: windows", "token by token")
# Variants that compute in float give the same figures in both readings.
SAME = "as in windows"


def variant_rows(manifest: Manifest, figures: Mapping[str, Figures] | None = None) -> list[tuple[str, ...]]:
    """Returns one row for each variant, with a cell for each of `HEADINGS`.

    The text is read in whole windows and, by the quantized variants, token by token as well, which gives other figures.
    Each reading has a column of its own. The rise after it is that over the float model.

    Args:
        manifest: The manifest, which lists the size of each file.
        figures: The figures of the variants to show; None shows those of the manifest.
    """
    if figures is None:
        figures = {name: entry.figures for name, entry in manifest.variants.items()}
    rows: list[tuple[str, ...]] = []
    for name, found in figures.items():
        size = f"{manifest.files[manifest.variants[name].file].bytes:,}"
        if (quality := found.quality) is not None:
            against = f"KL {quality.windows.kl:.1e}, {quality.windows.greedy_agreement:.1%} same"
            bits = _bits(quality.windows)
            unread = SAME if VARIANTS[name].is_float else "not read"
            decode = unread if quality.decode is None else _bits(quality.decode)
        else:
            against = "not measured" if found.parity is None else f"logits differ {found.parity:.1e}"
            bits = "as fp32" if found.bits_per_byte is None else f"{found.bits_per_byte:.4f}"
            decode = SAME
        rows.append((name, size, against, bits, decode))
    return rows


def _bits(reading: Fidelity) -> str:
    increase = round(reading.bpb_increase, 4) + 0.0  # -0.0 would be printed as -0.00%
    return f"{reading.bits_per_byte:.4f} {increase:+.2%}"


def variant_lines(manifest: Manifest, figures: Mapping[str, Figures] | None = None) -> list[str]:
    """Returns the rows as lines of text of at most 80 columns, with a heading; arguments as in `variant_rows`."""
    row = "{:<11} {:>11} {:<23}  {:<13}  {}"
    return [row.format(*cells).rstrip() for cells in (HEADINGS, *variant_rows(manifest, figures))]


def text_line(judged_on: JudgedOn) -> str:
    """Returns the line below the rows: the text that the variants were compared on."""
    tokens = counted(judged_on.tokens, "token")
    return f"bits: bits per byte of {tokens} ({judged_on.text}); another text gives other figures"


def bundle_facts(bundle: Bundle) -> dict[str, Any]:
    """Returns what a bundle holds, for JSON.

    Args:
        bundle: The bundle. Its path is part of the facts.
    """
    manifest, shape = bundle.manifest, bundle.config
    variants = {
        name: {"file": entry.file, "bytes": manifest.files[entry.file].bytes, "figures": plain(entry.figures)}
        for name, entry in manifest.variants.items()
    }
    return {
        "name": manifest.title,
        "preset": manifest.preset,
        "path": str(bundle.path),
        "family": shape.family,
        "parameters": shape.parameters,
        "context": shape.block_size,
        "vocabulary": shape.vocab_size,
        "layers": shape.n_layer,
        "heads": shape.n_head,
        "channels": shape.n_embd,
        "source": manifest.checkpoint.shown_source,
        "licence": manifest.checkpoint.licence,
        "target": manifest.target,
        "default": manifest.default,
        "variants": variants,
        "bytes": sum(file.bytes for file in manifest.files.values()),
        "judged_on": plain(manifest.judged_on),
        "versions": dict(manifest.versions),
        "sha256": bundle.manifest_sha256,
    }
