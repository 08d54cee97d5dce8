"""The only list of the figures of a result. CSV, JSON lines and all tables are made from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.report.families import title_of
from benchmarks.report.leaderboard import float_ratio, quality_increase, quality_kept
from benchmarks.report.metrics import DECODE, DISK, FIRST_TOKEN, MEMORY, Metric, first_token
from benchmarks.report.record import Report, Result
from slm.console.plain_text import without_controls

Value = str | int | float | None
MIB = 2**20


@dataclass(frozen=True)
class Field:
    """A figure of a result, as it is shown.

    Attributes:
        key: Its name in CSV and JSON lines.
        get: Returns its value; None if there is none.
        title: Its name in tables; empty if it is only in CSV and JSON lines.
        unit: Its unit in tables; empty if it has none.
        show: Returns a value as readable text.
        main: Whether it is in the table of a model's main figures.
        detail: Whether it is in the table of all cases.
        words: Whether it holds words, not numbers.
        metric: The metric by which its best values are found; None if none is better than another.
    """

    key: str
    get: Callable[[Report, Result], Value]
    title: str = ""
    unit: str = ""
    show: Callable[[Value], str] = str
    main: bool = False
    detail: bool = False
    words: bool = False
    metric: Metric | None = None

    @property
    def heading(self) -> str:
        """The title with its unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    def cell(self, report: Report, result: Result) -> str:
        """Returns the value as readable text; empty if there is none."""
        value = self.get(report, result)
        return "" if value is None else self.show(value)


def three_figures(value: float) -> str:
    """Returns a number with about three significant figures, in plain digits."""
    size = abs(value)
    if size >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 9.995 else f"{value:.2f}" if size >= 0.9995 else f"{value:.3f}"


def printable(text: str) -> str:
    """Returns a text as one line without control characters, which a terminal would execute."""
    return without_controls(" ".join(text.splitlines()))


def _number(value: Value) -> str:
    return three_figures(float(value or 0))


def _share(value: Value) -> str:
    return f"{float(value or 0) * 100:.0f} %"


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
    """Returns the bytes that a runner's libraries add to an empty Python process; None if not measured."""
    if result.imports_bytes is None or result.interpreter_bytes is None:
        return None
    return result.imports_bytes - result.interpreter_bytes


def _megabytes(value: Value) -> str:
    return three_figures(float(value or 0) / 1e6)


def _runner(value: Value) -> str:
    return title_of(str(value))


def percent(value: Value) -> str:
    """Returns a share with one decimal place, and from 99.9 % on with two, where a tenth is much of what is lost."""
    one, two = (round(100 * float(value or 0), digits) for digits in (1, 2))
    return f"{one:.1f} %" if one < 99.9 else f"{two:.2f} %" if two < 100 else "100 %"


FIELDS = (
    Field("preset", lambda report, result: result.case.preset),
    Field(
        "runner", lambda report, result: result.case.runner, "runner", "", _runner, main=True, detail=True, words=True
    ),
    Field("threads", lambda report, result: result.case.threads, "threads", main=True, detail=True),
    Field("prompt_tokens", lambda report, result: result.case.prompt_tokens, "prompt", detail=True),
    Field("depth_tokens", lambda report, result: result.case.depth, "depth", detail=True),
    Field("batch", lambda report, result: result.case.batch, "batch", detail=True),
    Field("decode_tokens_per_s", _decode, "tokens/s", "", _number, main=True, detail=True, metric=DECODE),
    Field("decode_spread", _spread, "±", "", _share, main=True, detail=True),
    Field("times_float", float_ratio, "times PyTorch", "", _times, main=True),
    Field("load_s", lambda report, result: result.load_seconds, "load", "s", _number, detail=True),
    Field("ttft_ms", _first_token, "first token", "ms", _number, main=True, detail=True, metric=FIRST_TOKEN),
    Field("prefill_tokens_per_s", _prefill, "prefill, tokens/s", "", _number, detail=True),
    Field("tpot_p50_ms", _step(50), "p50", "ms", _number, detail=True),
    Field("tpot_p95_ms", _step(95), "p95", "ms", _number, detail=True),
    Field("tpot_p99_ms", _step(99), "p99", "ms", _number, detail=True),
    Field(
        "peak_rss_mib",
        lambda report, result: _mebibytes(result.peak_bytes),
        "memory",
        "MiB",
        _number,
        main=True,
        detail=True,
        metric=MEMORY,
    ),
    Field("interpreter_mib", lambda report, result: _mebibytes(result.interpreter_bytes)),
    Field("libraries_mib", lambda report, result: _mebibytes(libraries_bytes(result))),
    Field("disk_bytes", lambda report, result: result.disk_bytes, "on disk", "MB", _megabytes, main=True, metric=DISK),
    Field("weights_mib", lambda report, result: _mebibytes(result.weight_bytes)),
    Field("ceiling_share", lambda report, result: report.ceiling_share(result)),
    Field("bits_per_byte", lambda report, result: result.bits_per_byte),
    Field("bpb_increase", quality_increase),
    Field("quality", quality_kept, "quality", "", percent, main=True),
    Field("agreement", lambda report, result: result.agreement, "equal ids", "", _share, detail=True),
    Field("status", lambda report, result: result.status),
    Field("note", lambda report, result: result.note or None),
)
