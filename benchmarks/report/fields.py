"""The only list of the figures that a report shows for a result. Every printer makes its tables from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.report.leaderboard import float_ratio, main_results, main_setting, measured, presets_of
from benchmarks.report.metrics import first_token
from benchmarks.report.record import MEASURED, Report, Result
from slm.json_reader import as_plain_text

Value = str | int | float | None
MIB = 2**20


@dataclass(frozen=True)
class Field:
    """A figure of a result, as it is shown.

    Attributes:
        key: Its name in CSV and JSON lines.
        title: Its name in tables.
        unit: Its unit in tables; empty if it has none.
        get: Returns its value; None if there is none.
        show: Returns a value as readable text.
        main: Whether it is in the short tables.
        setting: Whether it is a setting by which the cases of one runner differ.
        words: Whether it holds words, not numbers.
    """

    key: str
    title: str
    unit: str
    get: Callable[[Report, Result], Value]
    show: Callable[[Value], str] = str
    main: bool = False
    setting: bool = False
    words: bool = False

    @property
    def heading(self) -> str:
        """The title with its unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    def cell(self, report: Report, result: Result) -> str:
        """Return the value as readable text; empty if there is none."""
        value = self.get(report, result)
        return "" if value is None else self.show(value)


@dataclass(frozen=True)
class Table:
    """A table of readable text.

    Attributes:
        caption: A sentence above the table.
        headings: A heading for each column.
        rows: Rows with a cell for each column.
        words: For each column, whether it holds words, not numbers.
    """

    caption: str
    headings: list[str]
    rows: list[list[str]]
    words: list[bool]


def three_figures(value: float) -> str:
    """Return a number with about three significant figures, in plain digits."""
    size = abs(value)
    if size >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 9.995 else f"{value:.2f}" if size >= 0.9995 else f"{value:.3f}"


def printable(text: str) -> str:
    """Return a text as one line without control characters, which a terminal would execute."""
    return as_plain_text(" ".join(text.splitlines()))


def _number(value: Value) -> str:
    return three_figures(float(value or 0))


def _whole(value: Value) -> str:
    return f"{int(value or 0):,}"


def _share(value: Value) -> str:
    return f"{float(value or 0):.0%}"


def _change(value: Value) -> str:
    return f"{float(value or 0):+.2%}"


def _bits(value: Value) -> str:
    return f"{float(value or 0):.4f}"


def _times(value: Value) -> str:
    return f"{float(value or 0):.2f}x"


def _first_token(report: Report, result: Result) -> Value:
    samples = first_token(result)
    return None if samples is None else samples.median * 1000


def _prefill(report: Report, result: Result) -> Value:
    return None if result.prefill is None else result.prefill.median


def _decode(report: Report, result: Result) -> Value:
    return None if result.decode is None else result.decode.median


def _spread(report: Report, result: Result) -> Value:
    return None if result.decode is None else result.decode.spread


def _step(share: int) -> Callable[[Report, Result], Value]:
    def get(report: Report, result: Result) -> Value:
        seconds = result.percentile(share)
        return None if seconds is None else seconds * 1000

    return get


def _mebibytes(value: int | None) -> float | None:
    return None if value is None else value / MIB


def libraries_bytes(result: Result) -> int | None:
    """Return the bytes that a runner's libraries add to an empty Python process; None if not measured."""
    if result.imports_bytes is None or result.interpreter_bytes is None:
        return None
    return result.imports_bytes - result.interpreter_bytes


FIELDS = (
    Field("preset", "preset", "", lambda report, result: result.case.preset, main=True, words=True),
    Field("runner", "runner", "", lambda report, result: result.case.runner, main=True, words=True),
    Field("threads", "threads", "", lambda report, result: result.case.threads, main=True),
    Field("prompt_tokens", "prompt", "tokens", lambda report, result: result.case.prompt_tokens, setting=True),
    Field("depth_tokens", "depth", "tokens", lambda report, result: result.case.depth, setting=True),
    Field("batch", "batch", "", lambda report, result: result.case.batch, setting=True),
    Field("decode_tokens_per_s", "decode", "tokens/s", _decode, _number, main=True),
    Field("decode_spread", "spread", "±", _spread, _share, main=True),
    Field("times_float", "times torch eager", "", float_ratio, _times, main=True),
    Field("load_s", "load", "s", lambda report, result: result.load_seconds, _number),
    Field("ttft_ms", "TTFT", "ms", _first_token, _number, main=True),
    Field("prefill_tokens_per_s", "prefill", "tokens/s", _prefill, _number),
    Field("tpot_p50_ms", "TPOT p50", "ms", _step(50), _number),
    Field("tpot_p95_ms", "TPOT p95", "ms", _step(95), _number),
    Field("tpot_p99_ms", "TPOT p99", "ms", _step(99), _number),
    Field("peak_rss_mib", "peak RSS", "MiB", lambda report, result: _mebibytes(result.peak_bytes), _number, main=True),
    Field(
        "interpreter_mib",
        "interpreter's part",
        "MiB",
        lambda report, result: _mebibytes(result.interpreter_bytes),
        _number,
    ),
    Field(
        "libraries_mib", "libraries' part", "MiB", lambda report, result: _mebibytes(libraries_bytes(result)), _number
    ),
    Field("disk_bytes", "on disk", "bytes", lambda report, result: result.disk_bytes, _whole, main=True),
    Field(
        "weights_mib", "weights read per step", "MiB", lambda report, result: _mebibytes(result.weight_bytes), _number
    ),
    Field("ceiling_share", "share of bandwidth", "", lambda report, result: report.ceiling_share(result), _share),
    Field("bits_per_byte", "bits per byte", "", lambda report, result: result.bits_per_byte, _bits),
    Field(
        "bpb_increase",
        "increase of bits per byte",
        "",
        lambda report, result: result.bpb_increase,
        _change,
        main=True,
    ),
    Field("agreement", "greedy agreement", "", lambda report, result: result.agreement, _share),
    Field("status", "status", "", lambda report, result: result.status, words=True),
    Field("note", "note", "", lambda report, result: result.note or None, words=True),
)


def table(caption: str, report: Report, results: Sequence[Result], fields: Iterable[Field]) -> Table:
    """Return a table with a row for each result. Fields of which no result has a value are left out."""
    kept: list[tuple[Field, list[str]]] = []
    for field in fields:
        cells = [field.cell(report, result) for result in results]
        if any(cells):
            kept.append((field, cells))
    rows = [list(row) for row in zip(*(cells for _, cells in kept), strict=True)]
    return Table(caption, [field.heading for field, _ in kept], rows, [field.words for field, _ in kept])


def main_table(report: Report) -> Table:
    """Return the main figures of every model and runner at its best number of threads."""
    presets = presets_of(report)
    results = [result for preset in presets for result in main_results(report, preset).values()]
    settings = {preset: str(found) for preset in presets if (found := main_setting(report, preset)) is not None}
    same = len(set(settings.values())) == 1
    shown = settings.values() if same else (f"{preset}: {setting}" for preset, setting in settings.items())
    caption = next(iter(shown)) if same else "; ".join(shown)
    caption = f"Each runner at its best number of threads; {caption}." if caption else "Nothing was measured."
    return table(caption, report, results, [field for field in FIELDS if field.main])


def short_table(report: Report) -> Table:
    """Return every measured case, with the settings that differ between cases and the main figures."""
    results = measured(report)
    fields = [
        field
        for field in FIELDS
        if field.main or (field.setting and len({field.get(report, result) for result in results}) > 1)
    ]
    return table("Every measured case.", report, results, fields)


def full_table(report: Report) -> Table:
    """Return every measured case with every figure that any of them has."""
    return table(
        "Every measured case; medians of all rounds. TTFT: time to the first token; TPOT: time per output token.",
        report,
        measured(report),
        [field for field in FIELDS if field.key != "status"],
    )


def trouble_table(report: Report) -> Table:
    """Return every case that failed or was skipped, with the reason."""
    results = [result for result in report.results if result.status != MEASURED]
    wanted = ("preset", "runner", "threads", "prompt_tokens", "depth_tokens", "batch", "status", "note")
    return table("Failed and skipped cases.", report, results, [field for field in FIELDS if field.key in wanted])


def machine_table(report: Report) -> Table:
    """Return the machine and the models that the report was measured on, and the command."""
    rows = [
        ["created", report.created],
        ["command", report.command],
        *([key, value] for key, value in report.machine.items()),
    ]
    for threads, bandwidth in report.bandwidth.items():
        rows.append([f"read bandwidth, {threads} thread{'s' * (threads != '1')}", f"{bandwidth / 1e9:.1f} GB/s"])
    rows.append(["quality measured on", report.text or "nothing"])
    for name, model in report.models.items():
        weights = "trained" if model.trained else "random weights"
        rows.append([f"model {name}", f"{model.parameters:,} parameters, {weights}"])
    return Table("The machine and the models.", ["", ""], rows, [True, True])
