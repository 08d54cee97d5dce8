"""Figures that the model card of these presets publishes, compared with what is measured here.

The figures are repeated as they were published. Rules find those that cannot hold, and one note explains them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, fields

from benchmarks.report.fields import three_figures
from benchmarks.report.headline import in_a_list
from benchmarks.report.leaderboard import main_results
from benchmarks.report.record import Report
from benchmarks.report.table import Table
from runtimes.bundle.variants import VARIANTS
from slm.console.counted import duration
from slm.presets import PRESETS

SOURCE = (
    "Published: the model card uayushdubey/Small_Language_Model_to_Generate_Short_Stories on Hugging Face, its table "
    '"Benchmark Results".'
)
OUR_RUNNER = "int8"
MEGABYTE = 1e6
HOUR = 3600.0
FLOAT_BYTES = 4
# The largest distance from 1 of the product of two rounded figures.
ROUNDING = 0.1
# The mark of a published figure that cannot hold.
MARK = " *"


@dataclass(frozen=True)
class Row:
    """A preset's figures, as they are published; None if a figure is unknown. 1 MB is 10^6 bytes."""

    bleu: float | None = None
    perplexity: float | None = None
    bits_per_byte: float | None = None
    ms_per_token: float | None = None
    memory_mb: float | None = None
    training_seconds: float | None = None
    gpu_memory_gb: float | None = None
    size_mb: float | None = None
    tokens_per_second: float | None = None


TITLES = {
    "bleu": "BLEU",
    "perplexity": "perplexity per token",
    "bits_per_byte": "bits per byte",
    "ms_per_token": "ms per token",
    "memory_mb": "memory, MB",
    "training_seconds": "training time",
    "gpu_memory_gb": "GPU memory in training, GB",
    "size_mb": "model size, MB",
    "tokens_per_second": "tokens/s",
}
CLAIMS = {
    "nano": Row(18.2, 68.5, None, 3.2, 12, 0.8 * HOUR, 0.5, 1.6, 2150),
    "micro": Row(21.7, 52.3, None, 5.8, 28, 1.5 * HOUR, 0.8, 4.8, 1820),
    "small": Row(26.4, 38.9, None, 12.4, 89, 4.2 * HOUR, 1.2, 18.5, 1240),
    "medium": Row(29.1, 32.4, None, 28.7, 287, 12.3 * HOUR, 2.4, 95.2, 890),
}


def measured(report: Report, preset: str) -> Row:
    """Returns the figures of a preset's int8 variant at its best number of threads, and the model's quality."""
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


def _published(value: float) -> str:
    """Returns a figure as it was published, without digits that were not."""
    return f"{value:,g}"


def _cell(key: str, row: Row, missing: str, show: Callable[[float], str]) -> str:
    value: float | None = getattr(row, key)
    if value is None:
        return missing
    return duration(value) if key == "training_seconds" else show(value)


def literature_table(report: Report) -> Table:
    """Returns a table with a column for each preset, and for each figure a measured and a published row."""
    ours = {preset: measured(report, preset) for preset in CLAIMS}
    wrong = impossible(report)
    rows = []
    for key in (entry.name for entry in fields(Row)):
        figures = [_cell(key, ours[preset], "not measured", three_figures) for preset in CLAIMS]
        rows.append([TITLES[key], "measured", *figures])
        published = [
            _cell(key, claim, "not given", _published) + (MARK if (preset, key) in wrong else "")
            for preset, claim in CLAIMS.items()
        ]
        rows.append(["", "published", *published])
    caption = (
        f"{SOURCE} Measured: {OUR_RUNNER} at its best number of threads; BLEU, perplexity and bits per byte: the float "
        "model."
    )
    return Table(["", "", *CLAIMS], rows, caption, words=[True, True, *(False for _ in CLAIMS)])


def impossible(report: Report) -> dict[tuple[str, str], float]:
    """Returns the published figures that cannot hold, by preset and field.

    The value says how far they are off: how many times more tokens per second than the time per token allows, the bytes
    per parameter of the file, or the megabytes that Python with onnxruntime takes here before it opens a model.
    """
    base = base_bytes(report)
    found: dict[tuple[str, str], float] = {}
    for preset, claim in CLAIMS.items():
        if claim.ms_per_token and claim.tokens_per_second:
            product = claim.ms_per_token * claim.tokens_per_second / 1000
            if abs(product - 1) > ROUNDING:
                found[preset, "tokens_per_second"] = product
        parameters = PRESETS[preset].config.parameters
        if claim.size_mb and claim.size_mb * MEGABYTE < FLOAT_BYTES * parameters:
            found[preset, "size_mb"] = claim.size_mb * MEGABYTE / parameters
        if claim.memory_mb and base is not None and claim.memory_mb * MEGABYTE < base:
            found[preset, "memory_mb"] = base / MEGABYTE
    return found


def base_bytes(report: Report) -> int | None:
    """Returns the memory of Python with onnxruntime before a model is opened; None if it was not measured."""
    known = [
        result.imports_bytes
        for result in report.results
        if result.imports_bytes and result.case.runner in VARIANTS and not VARIANTS[result.case.runner].is_torch
    ]
    return min(known, default=None)


def note(report: Report) -> str:
    """Returns one note: which published figures cannot hold and why, and which cannot be compared."""
    wrong = impossible(report)
    reasons = []
    for key, words in (
        ("tokens_per_second", "the tokens/s of {presets} are {low} to {high} times what the ms per token allow"),
        ("size_mb", "the files of {presets} have {low} to {high} bytes per parameter, and float32 takes 4"),
        (
            "memory_mb",
            "the memory of {presets} is less than the {high} MB that Python with onnxruntime takes here alone",
        ),
    ):
        values = {preset: value for (preset, field), value in wrong.items() if field == key}
        if values:
            low, high = (three_figures(end(values.values())) for end in (min, max))
            reasons.append(words.format(presets=in_a_list(list(values)), low=low, high=high))
    starred = f"*: cannot hold: {'; '.join(reasons)}. " if reasons else ""
    sizes = sorted({PRESETS[preset].config.vocab_size for preset in CLAIMS})
    vocabularies = in_a_list([f"{size:,}" for size in sizes])
    return (
        f"{starred}Perplexity is per token, and these presets have vocabularies of {vocabularies} tokens, so their "
        "perplexities cannot be compared with each other. Bits per byte can."
    )
