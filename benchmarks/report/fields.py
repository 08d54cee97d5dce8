"""The one list of what a report shows of a result; every printer draws its tables from here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.report.leaderboard import deciding, deciding_setting, float_ratio, measured, presets_of
from benchmarks.report.metrics import first_token
from benchmarks.report.record import MEASURED, Report, Result

Value = str | int | float | None
MIB = 2**20


@dataclass(frozen=True)
class Column:
    """A figure of a result: `key` for machines, `title` and `unit` for people, its value, and how a value is shown.

    `deciding` columns are in the short tables, `setting` columns tell cases of one side apart, `words` columns hold no
    numbers.
    """

    key: str
    title: str
    unit: str
    get: Callable[[Report, Result], Value]
    show: Callable[[Value], str] = str
    deciding: bool = False
    setting: bool = False
    words: bool = False

    @property
    def heading(self) -> str:
        """The title with its unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    def cell(self, report: Report, result: Result) -> str:
        """The value as text for people, empty where there is none."""
        value = self.get(report, result)
        return "" if value is None else self.show(value)


@dataclass(frozen=True)
class Table:
    """A table for people: a caption, headings, rows of as many cells, and which of the columns hold words."""

    caption: str
    headings: list[str]
    rows: list[list[str]]
    words: list[bool]


def three_figures(value: float) -> str:
    """A number to about three significant figures, in plain digits."""
    size = abs(value)
    if size >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 9.995 else f"{value:.2f}" if size >= 0.9995 else f"{value:.3f}"


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
    """What a side's libraries add to an empty Python, in bytes."""
    if result.imports_bytes is None or result.interpreter_bytes is None:
        return None
    return result.imports_bytes - result.interpreter_bytes


COLUMNS = (
    Column("preset", "preset", "", lambda report, result: result.case.preset, deciding=True, words=True),
    Column("side", "side", "", lambda report, result: result.case.side, deciding=True, words=True),
    Column("threads", "threads", "", lambda report, result: result.case.threads, deciding=True),
    Column("prompt_tokens", "prompt", "tokens", lambda report, result: result.case.prompt_tokens, setting=True),
    Column("depth_tokens", "depth", "tokens", lambda report, result: result.case.depth, setting=True),
    Column("batch", "batch", "", lambda report, result: result.case.batch, setting=True),
    Column("decode_tokens_per_s", "decode", "tokens/s", _decode, _number, deciding=True),
    Column("decode_spread", "spread", "±", _spread, _share, deciding=True),
    Column("times_float", "times torch eager", "", float_ratio, _times, deciding=True),
    Column("load_s", "load", "s", lambda report, result: result.load_seconds, _number),
    Column("ttft_ms", "TTFT", "ms", _first_token, _number, deciding=True),
    Column("prefill_tokens_per_s", "prefill", "tokens/s", _prefill, _number),
    Column("tpot_p50_ms", "TPOT p50", "ms", _step(50), _number),
    Column("tpot_p95_ms", "TPOT p95", "ms", _step(95), _number),
    Column("tpot_p99_ms", "TPOT p99", "ms", _step(99), _number),
    Column(
        "peak_rss_mib", "peak RSS", "MiB", lambda report, result: _mebibytes(result.peak_bytes), _number, deciding=True
    ),
    Column(
        "interpreter_mib",
        "of it interpreter",
        "MiB",
        lambda report, result: _mebibytes(result.interpreter_bytes),
        _number,
    ),
    Column(
        "libraries_mib", "of it libraries", "MiB", lambda report, result: _mebibytes(libraries_bytes(result)), _number
    ),
    Column("disk_bytes", "on disk", "bytes", lambda report, result: result.disk_bytes, _whole, deciding=True),
    Column("weights_mib", "weights a step", "MiB", lambda report, result: _mebibytes(result.weight_bytes), _number),
    Column("ceiling_share", "of the bandwidth", "", lambda report, result: report.ceiling_share(result), _share),
    Column("bits_per_byte", "bits per byte", "", lambda report, result: result.bits_per_byte, _bits),
    Column("loss", "quality loss", "", lambda report, result: result.loss, _change, deciding=True),
    Column("agreement", "greedy agreement", "", lambda report, result: result.agreement, _share),
    Column("status", "status", "", lambda report, result: result.status, words=True),
    Column("note", "note", "", lambda report, result: result.note or None, words=True),
)


def table(caption: str, report: Report, results: Sequence[Result], columns: Iterable[Column]) -> Table:
    """Results as rows; a column without any value is left out."""
    kept: list[tuple[Column, list[str]]] = []
    for column in columns:
        cells = [column.cell(report, result) for result in results]
        if any(cells):
            kept.append((column, cells))
    rows = [list(row) for row in zip(*(cells for _, cells in kept), strict=True)]
    return Table(caption, [column.heading for column, _ in kept], rows, [column.words for column, _ in kept])


def deciding_table(report: Report) -> Table:
    """Speed, memory, size and quality loss in one row: every preset and side at its best thread count."""
    presets = presets_of(report)
    results = [result for preset in presets for result in deciding(report, preset).values()]
    settings = {preset: str(found) for preset in presets if (found := deciding_setting(report, preset)) is not None}
    same = len(set(settings.values())) == 1
    told = settings.values() if same else (f"{preset}: {setting}" for preset, setting in settings.items())
    caption = next(iter(told)) if same else "; ".join(told)
    caption = f"Each side at its best thread count; {caption}." if caption else "Nothing was measured."
    return table(caption, report, results, [column for column in COLUMNS if column.deciding])


def short_table(report: Report) -> Table:
    """Every measured case, with the settings that differ between cases and the deciding figures."""
    results = measured(report)
    columns = [
        column
        for column in COLUMNS
        if column.deciding or (column.setting and len({column.get(report, result) for result in results}) > 1)
    ]
    return table("Every measured case.", report, results, columns)


def full_table(report: Report) -> Table:
    """Every measured case with every figure that any of them has."""
    results = measured(report)
    return table(
        "Every measured case; medians of all rounds. TTFT: time to the first token; TPOT: time per output token.",
        report,
        results,
        [column for column in COLUMNS if column.key != "status"],
    )


def trouble_table(report: Report) -> Table:
    """Every case that failed or was skipped, with why."""
    results = [result for result in report.results if result.status != MEASURED]
    wanted = ("preset", "side", "threads", "prompt_tokens", "depth_tokens", "batch", "status", "note")
    columns = [column for column in COLUMNS if column.key in wanted]
    return table("Failed and skipped cases.", report, results, columns)


def machine_table(report: Report) -> Table:
    """What the report was measured on, and how it was called."""
    rows = [
        ["created", report.created],
        ["command", report.command],
        *([key, value] for key, value in report.machine.items()),
    ]
    for threads, bandwidth in report.bandwidth.items():
        rows.append([f"read bandwidth, {threads} thread{'s' * (threads != '1')}", f"{bandwidth / 1e9:.1f} GB/s"])
    rows.append(["quality judged on", report.text or "nothing"])
    for name, model in report.models.items():
        weights = "trained" if model.trained else "random weights"
        rows.append([f"model {name}", f"{model.parameters:,} parameters, {weights}"])
    return Table("The machine and the models.", ["", ""], rows, [True, True])
