"""Figures that articles publish for story models of these sizes, compared with what is measured here.

The claims are repeated as they were published. Rules find the claims that cannot be true, and explain why.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, fields

from benchmarks.report.fields import Table, three_figures
from benchmarks.report.leaderboard import main_results
from benchmarks.report.record import Report
from runtimes.bundle.variants import VARIANTS
from slm.presets import PRESETS

OUR_RUNNER = "int8"
MEGABYTE = 1e6
# Number formats and their bytes per weight, from wide to narrow.
FORMATS = (("float32", 4.0), ("float16", 2.0), ("int8", 1.0), ("4 bits", 0.5), ("2 bits", 0.25))
# The largest distance from 1 of the product of two rounded figures.
ROUNDING = 0.1


@dataclass(frozen=True)
class Row:
    """A preset's figures as in articles; None if a figure is unknown. 1 MB is 10^6 bytes."""

    bleu: float | None = None
    perplexity: float | None = None
    bits_per_byte: float | None = None
    ms_per_token: float | None = None
    memory_mb: float | None = None
    training_seconds: float | None = None
    size_mb: float | None = None
    tokens_per_second: float | None = None


TITLES = {
    "bleu": "BLEU",
    "perplexity": "perplexity per token",
    "bits_per_byte": "bits per byte",
    "ms_per_token": "ms per token",
    "memory_mb": "memory, MB",
    "training_seconds": "training time",
    "size_mb": "model size, MB",
    "tokens_per_second": "tokens/s",
}
CLAIMS = {
    "nano": Row(18.2, 68.5, None, 3.2, 12, None, 1.6, 2150),
    "micro": Row(21.7, 52.3, None, 5.8, 28, None, 4.8, 1820),
    "small": Row(26.4, 38.9, None, 12.4, 89, None, 18.5, 1240),
    "medium": Row(29.1, 32.4, None, 28.7, 287, None, 95.2, 890),
}


def measured(report: Report, preset: str) -> Row:
    """Return the figures of a preset's int8 variant at its best number of threads, and the model's quality."""
    model, result = report.models.get(preset), main_results(report, preset).get(OUR_RUNNER)
    speed = result.decode.median if result is not None and result.decode is not None else None
    step = statistics.median(result.decode_seconds) / (result.case.new_tokens - 1) if result and speed else None
    return Row(
        bleu=None if model is None else model.bleu,
        perplexity=None if model is None else model.perplexity,
        bits_per_byte=None if model is None else model.bits_per_byte,
        ms_per_token=None if step is None else step * 1000,
        memory_mb=result.peak_bytes / MEGABYTE if result and result.peak_bytes else None,
        training_seconds=None if model is None else model.training_seconds,
        size_mb=result.disk_bytes / MEGABYTE if result and result.disk_bytes else None,
        tokens_per_second=speed,
    )


def duration(seconds: float) -> str:
    """Return seconds as readable text: 42 s, 7 min, 3.1 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _cell(key: str, row: Row, missing: str) -> str:
    value: float | None = getattr(row, key)
    if value is None:
        return missing
    return duration(value) if key == "training_seconds" else three_figures(value)


def literature_table(report: Report) -> Table:
    """Return a table with a column for each preset, and for each figure a measured and a published row."""
    ours = {preset: measured(report, preset) for preset in CLAIMS}
    rows = []
    for key in (entry.name for entry in fields(Row)):
        rows.append([TITLES[key], "measured", *(_cell(key, ours[preset], "not measured") for preset in CLAIMS)])
        rows.append(["", "published", *(_cell(key, CLAIMS[preset], "not given") for preset in CLAIMS)])
    caption = (
        f"Measured: {OUR_RUNNER} at its best number of threads; BLEU, perplexity and bits per byte: the float model."
    )
    return Table(caption, ["", "", *CLAIMS], rows, [True, True, *(False for _ in CLAIMS)])


def speed_note(preset: str, claim: Row) -> str | None:
    """Return a note if tokens per second and milliseconds per token contradict each other: their product is 1000."""
    if claim.ms_per_token is None or claim.tokens_per_second is None:
        return None
    times = claim.ms_per_token * claim.tokens_per_second / 1000
    if abs(times - 1) <= ROUNDING:
        return None
    return (
        f"{preset}: {three_figures(claim.ms_per_token)} ms per token is "
        f"{three_figures(1000 / claim.ms_per_token)} tokens/s; the {three_figures(claim.tokens_per_second)} tokens/s "
        f"published are {three_figures(times)} times that, so both cannot be measurements of the same run."
    )


def size_note(preset: str, claim: Row, parameters: int) -> str | None:
    """Return a note if a file has less than four bytes per parameter, so that it cannot hold float32 weights."""
    if claim.size_mb is None or claim.size_mb * MEGABYTE >= 4 * parameters:
        return None
    each = claim.size_mb * MEGABYTE / parameters
    fits = next((f"room for {name} at most" for name, size in FORMATS if size <= each), "room for no number format")
    return (
        f"{preset}: {claim.size_mb} MB for {parameters:,} parameters is {each:.2f} bytes each, {fits}; "
        f"in float32 they take {4 * parameters / MEGABYTE:.1f} MB."
    )


def memory_note(preset: str, claim: Row, base_bytes: int | None) -> str | None:
    """Return a note if a claim states less memory than the interpreter and the runtime need.

    `base_bytes` is the memory of these two on this machine; None if it was not measured.
    """
    if base_bytes is None or claim.memory_mb is None or claim.memory_mb * MEGABYTE >= base_bytes:
        return None
    return (
        f"{preset}: {claim.memory_mb:g} MB of memory is less than the {base_bytes / MEGABYTE:.0f} MB that Python with "
        "onnxruntime takes here before it opens a model."
    )


def perplexity_note(report: Report) -> str | None:
    """Return a note if the presets have different vocabularies, so that their perplexities cannot be compared."""
    sizes = sorted({PRESETS[preset].config.vocab_size for preset in CLAIMS})
    if len(sizes) < 2:
        return None
    known = [
        f"{preset} {model.bits_per_byte:.4f}"
        for preset in CLAIMS
        if (model := report.models.get(preset)) is not None and model.bits_per_byte is not None
    ]
    values = f": {', '.join(known)}" if known else ""
    return (
        f"Perplexity is per token, and these presets have vocabularies of {', '.join(map(str, sizes[:-1]))} and "
        f"{sizes[-1]} tokens, so their perplexities cannot be compared. Bits per byte can be compared{values}."
    )


def notes(report: Report) -> list[str]:
    """Return a sentence for each published figure that cannot be true, and for figures that cannot be compared."""
    bases = [
        result.imports_bytes
        for result in report.results
        if result.imports_bytes and result.case.runner in VARIANTS and not VARIANTS[result.case.runner].is_torch
    ]
    base = min(bases, default=None)
    found = [speed_note(preset, claim) for preset, claim in CLAIMS.items()]
    found += [size_note(preset, claim, PRESETS[preset].config.parameters) for preset, claim in CLAIMS.items()]
    found += [memory_note(preset, claim, base) for preset, claim in CLAIMS.items()]
    return [note for note in (*found, perplexity_note(report)) if note is not None]
