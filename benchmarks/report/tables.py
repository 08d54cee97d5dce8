"""The tables of a report. Every printer shows the same tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.report.families import LLAMA_CPP, PYTORCH, Family, title_of
from benchmarks.report.fields import FIELDS, Field, percent, three_figures
from benchmarks.report.headline import how_full, times
from benchmarks.report.leaderboard import (
    Setting,
    at_best_threads,
    families,
    family_ratio,
    fastest,
    in_order,
    largest_setting,
    main_results,
    main_setting,
    measured,
    ours,
    presets_of,
    quality_kept,
    setting_of,
    speed,
)
from benchmarks.report.metrics import DECODE, FIRST_TOKEN, METRICS, Metric
from benchmarks.report.record import Report, Result
from benchmarks.report.table import Table
from runtimes.bundle.variants import MOST_LOSS, VARIANTS
from runtimes.engine.session import MOST_THREADS, ONE_THREAD_BYTES, default_threads
from slm.console.counted import counted

BEST = "Bold: the best of the column, and figures that differ from it by no more than the noise and 10 %."
# The largest distance from the best that can count as equal to it.
FARTHEST = 0.1
DEFAULT = "int8"  # of the target `any`
# Figures of the first model in the table of several models.
FIRST_MODEL = ("ttft_ms", "peak_rss_mib", "disk_bytes", "quality")


@dataclass(frozen=True)
class _Column:
    """A column: its heading, its cells, and the places of its best cells."""

    heading: str
    cells: list[str]
    words: bool = False
    best: frozenset[int] = frozenset()


def _joined(caption: str, columns: Iterable[_Column]) -> Table:
    """Returns the table of the columns that have a cell."""
    kept = [column for column in columns if any(column.cells)]
    return Table(
        [column.heading for column in kept],
        [list(row) for row in zip(*(column.cells for column in kept), strict=True)],
        caption,
        words=[column.words for column in kept],
        best=frozenset((row, number) for number, column in enumerate(kept) for row in column.best),
    )


def _best_rows(metric: Metric | None, results: Sequence[Result | None]) -> frozenset[int]:
    """Returns the rows of the best result and of those that are equal to it. Without two figures, none is marked."""
    known = [one for one in results if metric is not None and one is not None and metric.samples(one) is not None]
    if metric is None or len(known) < 2:
        return frozenset()
    best = max(known, key=metric.rank)

    def equal(one: Result) -> bool:
        return metric.lead(best, one) is None and (metric.gain(best, one) or 0) <= 1 + FARTHEST

    return frozenset(row for row, one in enumerate(results) if one in known and one is not None and equal(one))


def _column(report: Report, results: Sequence[Result | None], field: Field, heading: str = "") -> _Column:
    cells = ["" if result is None else field.cell(report, result) for result in results]
    return _Column(heading or field.heading, cells, field.words, _best_rows(field.metric, results))


def _setting_words(settings: Mapping[str, Setting | None]) -> str:
    """Returns the settings of models in words: one for all, or one for each."""
    words = {preset: str(setting) for preset, setting in settings.items() if setting is not None}
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return "; ".join(f"{preset}: {setting}" for preset, setting in words.items())


def _quality_words(report: Report) -> str:
    """Returns what the column quality means, and which text it was measured on; nothing without a text."""
    if report.text is None:
        return ""
    return (
        " Quality: the bits per byte of the float model divided by those of the runner, read in whole windows. "
        f"A peer with the same weights has the same quality. Its text: {report.text}."
    )


def preset_table(report: Report, preset: str) -> Table:
    """Returns the main figures of a model: a row for each runner at its best number of threads, ours first."""
    found = main_results(report, preset)
    results = [found[runner] for runner in in_order(found)]
    columns = [_column(report, results, field) for field in FIELDS if field.main]
    setting = largest_setting(report, preset, "depth")
    if setting is not None:
        deep = at_best_threads(report, preset, setting)
        at_depth = [deep.get(result.case.runner) for result in results]
        cells = ["" if result is None else three_figures(speed(result)) for result in at_depth]
        heading = f"tokens/s {how_full(report, preset, setting.depth)}"
        place = next(number for number, column in enumerate(columns) if column.heading == "times PyTorch")
        columns.insert(place, _Column(heading, cells, best=_best_rows(DECODE, at_depth)))
    words = _setting_words({preset: main_setting(report, preset)})
    caption = f"{preset}, {words}. Each runner is at its best number of threads."
    return _joined(f"{caption} {BEST}{_quality_words(report)}" if results else "Nothing was measured.", columns)


def main_table(report: Report) -> Table:
    """Returns the one table that a report begins with: the figures of its model, or the speeds of all its models.

    For several models, the other figures are those of the first.
    """
    presets = [preset for preset in presets_of(report) if main_results(report, preset)]
    if len(presets) < 2:
        return preset_table(report, presets[0] if presets else "")
    found = {preset: main_results(report, preset) for preset in presets}
    runners = in_order(dict.fromkeys(runner for preset in presets for runner in found[preset]))
    by_key = {field.key: field for field in FIELDS}
    columns = [_Column("runner", [title_of(runner) for runner in runners], words=True)]
    for preset in presets:
        results = [found[preset].get(runner) for runner in runners]
        columns.append(_column(report, results, by_key["decode_tokens_per_s"], f"{preset}, tokens/s"))
    first = [found[presets[0]].get(runner) for runner in runners]
    columns += [_column(report, first, by_key[key], f"{presets[0]}: {by_key[key].heading}") for key in FIRST_MODEL]
    settings = _setting_words({preset: main_setting(report, preset) for preset in presets})
    caption = f"Each runner at its best number of threads, {settings}. {BEST}{_quality_words(report)}"
    return _joined(caption, columns)


def prompt_table(report: Report) -> Table:
    """Returns how fast the longest prompt of each model is read, and the ratio to the best of PyTorch."""
    settings = {preset: largest_setting(report, preset, "prompt_tokens") for preset in presets_of(report)}
    return _setting_table(report, settings, "prefill_tokens_per_s", FIRST_TOKEN, PYTORCH, "Tokens of the prompt")


def batch_table(report: Report) -> Table:
    """Returns how fast the most stories are written together with each model, and the ratio to llama.cpp's best."""
    settings = {preset: largest_setting(report, preset, "batch") for preset in presets_of(report)}
    return _setting_table(report, settings, "decode_tokens_per_s", DECODE, LLAMA_CPP, "Tokens of all stories")


def _setting_table(
    report: Report, settings: Mapping[str, Setting | None], key: str, metric: Metric, family: Family, tokens: str
) -> Table:
    """Returns a figure of each runner under a setting of each model, and its ratio to the best of a family."""
    found = {
        preset: at_best_threads(report, preset, setting, metric)
        for preset, setting in settings.items()
        if setting is not None
    }
    runners = in_order(dict.fromkeys(runner for results in found.values() for runner in results))
    (figure,) = (replace(field, metric=metric) for field in FIELDS if field.key == key)
    columns = [_Column("runner", [title_of(runner) for runner in runners], words=True)]
    for preset, known in found.items():
        results = [known.get(runner) for runner in runners]
        ratios = [None if one is None else family_ratio(report, one, family, metric) for one in results]
        columns.append(_column(report, results, figure, f"{preset}, tokens/s"))
        columns.append(
            _Column(f"{preset}, times {family.name}'s best", ["" if one is None else f"{one:.2f}x" for one in ratios])
        )
    threads = "Each runner is at the best number of threads that was measured; the table of all cases has it."
    caption = f"{tokens} per second, {_setting_words(settings)}. {threads} {BEST}"
    return _joined(caption, columns)


def choice_table(report: Report) -> Table:
    """Returns what slmx runs for each model if nothing is named, and the fastest way among those that lose little."""
    rows = []
    for preset in presets_of(report):
        setting = main_setting(report, preset)
        own = [
            result
            for result in measured(report)
            if result.case.preset == preset
            and result.case.runner in VARIANTS
            and setting_of(result.case) == setting
            and VARIANTS[result.case.runner].may_be_default
        ]
        quickest = fastest(own)
        default = next(
            (
                result
                for result in own
                if result.case.runner == DEFAULT and result.case.threads == _threads(report, result)
            ),
            None,
        )
        if default is None or quickest is None:
            continue
        ratio = speed(default) / speed(quickest)
        rows.append([preset, _way(default), three_figures(speed(default)), _way(quickest), f"{ratio:.2f}x"])
    caption = (
        f"Without an option, slmx runs {DEFAULT}. It takes one thread below {ONE_THREAD_BYTES / 1e6:.0f} MB of "
        "weights, because waking a second one mostly takes longer than it saves. Larger models take all cores, at most "
        f"{MOST_THREADS}. The quickest is that of the variants that lose at most {percent(MOST_LOSS)}. "
        "slmx doctor --pin keeps it for a bundle and a processor."
    )
    headings = ["preset", "slmx runs", "tokens/s", "the quickest that was measured", "times the quickest"]
    return Table(headings, rows, caption if rows else "", words=[True, True, False, True, False])


def _threads(report: Report, result: Result) -> int:
    """Returns the number of threads that slmx chooses for the variant of a result on the machine of the report."""
    cores = report.machine.get("cores", "")
    return default_threads(result.disk_bytes or 0, int(cores) if re.fullmatch(r"[0-9]{1,6}", cores) else 1)


def _way(result: Result) -> str:
    return f"{result.case.runner}, {counted(result.case.threads, 'thread')}"


def leads_table(report: Report) -> Table:
    """Returns where a runner of another family is better than our recommended variant by more than the noise."""
    rows = []
    for preset in presets_of(report):
        own = ours(report, preset)
        if own is None:
            continue
        for results in families(main_results(report, preset)).values():
            for result in results:
                for metric in METRICS:
                    lead, theirs, mine = metric.lead(result, own), metric.samples(result), metric.samples(own)
                    if lead is None or theirs is None or mine is None:
                        continue
                    figures = [f"{three_figures(one.median * metric.scale)} {metric.unit}" for one in (theirs, mine)]
                    known = [quality_kept(report, one) for one in (result, own)]
                    qualities = ["" if kept is None else percent(kept) for kept in known]
                    name = title_of(result.case.runner)
                    rows.append([preset, name, metric.topic, *figures, times(lead), *qualities])
    headings = ["preset", "runner", "ahead in", "its figure", "slmx", "times", "its quality", "slmx: quality"]
    caption = "Each runner is compared with the recommended variant. Differences within the noise are left out."
    return Table(headings, rows, caption, words=[True, True, True, *[False] * 5])


def case_table(report: Report, preset: str) -> Table:
    """Returns every measured case of a model."""
    results = [result for result in measured(report) if result.case.preset == preset]
    runners = in_order(dict.fromkeys(result.case.runner for result in results))
    results.sort(key=lambda result: (*setting_of(result.case), runners.index(result.case.runner), result.case.threads))
    caption = (
        "Medians of all rounds. p50, p95, p99: 50, 95 and 99 percent of the tokens take no longer. "
        "Equal ids: the share of leading greedy ids that are equal to the float model's."
    )
    return _joined(caption, [_column(report, results, field, field.heading) for field in FIELDS if field.detail])


def trouble_table(report: Report, status: str) -> Table:
    """Returns every case with a status, "failed" or "skipped", and the reason. Cases with one reason share a row."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for result in report.results:
        if result.status == status:
            groups.setdefault((result.case.preset, result.case.runner, result.note), []).append(result)
    rows = [
        [preset, title_of(runner), "; ".join(dict.fromkeys(_work(result) for result in results)), note]
        for (preset, runner, note), results in groups.items()
    ]
    return Table(["preset", "runner", "cases", "reason"], rows, words=[True, True, True, True])


def _work(result: Result) -> str:
    case = result.case
    return f"{counted(case.threads, 'thread')}, {setting_of(case)}"


def machine_table(report: Report) -> Table:
    """Returns the machine and the models that the report was measured on, and the command."""
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
        quality = "" if model.bits_per_byte is None else f", {model.bits_per_byte:.4f} bits per byte"
        rows.append([f"model {name}", f"{model.parameters:,} parameters, {weights}{quality}"])
    return Table(["", ""], rows, words=[True, True])
