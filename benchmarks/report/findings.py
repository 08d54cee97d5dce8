"""The titles of charts. A title says what the chart shows, computed from the figures."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report.families import family_of, title_of
from benchmarks.report.fields import MIB, percent, three_figures
from benchmarks.report.headline import in_a_list, times
from benchmarks.report.leaderboard import (
    at_best_threads,
    contenders,
    families,
    fastest,
    largest_setting,
    main_results,
    main_setting,
    measured,
    ours,
    quality_kept,
    setting_of,
    speed,
)
from benchmarks.report.metrics import DECODE, DISK, MEMORY, Metric
from benchmarks.report.record import Report, Result


def _of_presets(found: Sequence[str], presets: Sequence[str]) -> str:
    """Returns " with A and B", or nothing if that is every preset of several or the only one."""
    return "" if len(found) == len(presets) else f" with {in_a_list(found)}"


def _own(report: Report, presets: Sequence[str]) -> dict[str, Result]:
    return {preset: own for preset in presets if (own := ours(report, preset)) is not None}


def _ahead_of_ours(report: Report, own: Result, metric: Metric) -> Result | None:
    """Returns the runner of another family that is farthest ahead of ours in a metric; None if none is."""
    groups = families(main_results(report, own.case.preset))
    leads = [(lead, one) for group in groups.values() for one in group if (lead := metric.lead(one, own)) is not None]
    return max(leads, key=lambda pair: pair[0])[1] if leads else None


def speed_title(report: Report, presets: Sequence[str]) -> str:
    """Returns where our variant is fastest, or which runtime is faster."""
    own = _own(report, presets)
    if not own:
        return "Tokens per second"
    name = title_of(next(iter(own.values())).case.runner)
    faster = {preset: one for preset, mine in own.items() if (one := _ahead_of_ours(report, mine, DECODE)) is not None}
    if faster:
        winners = dict.fromkeys(title_of(one.case.runner) for one in faster.values())
        verb = "is" if len(winners) == 1 else "are"
        return f"{in_a_list(list(winners))} {verb} faster than {name}{_of_presets(list(faster), list(own))}"
    rivals = {
        preset: [one for one in contenders(main_results(report, preset)) if one is not mine]
        for preset, mine in own.items()
    }
    if not any(rivals.values()):
        return f"{name} writes {three_figures(speed(next(iter(own.values()))))} tokens/s"
    names = dict.fromkeys(family_of(one.case.runner).name for others in rivals.values() for one in others)
    leads = [DECODE.lead(mine, one) for preset, mine in own.items() for one in rivals[preset]]
    if all(lead is not None for lead in leads):
        least = times(min(lead for lead in leads if lead is not None))
        more = "at least " if len(leads) > 1 else ""
        others = f"the {len(names)} other runtimes" if len(names) > 1 else next(iter(names))
        return f"{name} is {more}{least} as fast as {others}"
    return f"No other runtime is faster than {name} by more than the noise"


def memory_title(report: Report, presets: Sequence[str]) -> str:
    """Returns which runtime needs the least memory, and what ours needs."""
    own = {preset: mine for preset, mine in _own(report, presets).items() if mine.peak_bytes is not None}
    if not own:
        return "Peak memory of the process"
    preset, first = next(iter(own.items()))
    name = title_of(first.case.runner)
    less = {preset: one for preset, mine in own.items() if (one := _ahead_of_ours(report, mine, MEMORY)) is not None}
    amount = f"{(first.peak_bytes or 0) / MIB:,.0f} MiB with {preset}"
    if not less:
        rivals = any(len(main_results(report, preset)) > 1 for preset in own)
        return f"{name} needs the least memory: {amount}" if rivals else f"{name} needs {amount}"
    names = dict.fromkeys(family_of(one.case.runner).name for one in less.values())
    verb = "needs" if len(names) == 1 else "need"
    return (
        f"{in_a_list(list(names))} {verb} the least memory{_of_presets(list(less), list(own))}; {name} needs {amount}"
    )


def latency_title(report: Report, presets: Sequence[str]) -> str:
    """Returns how long nearly all tokens of our variant take."""
    for preset, mine in _own(report, presets).items():
        slowest = mine.percentile(99)
        if slowest is not None:
            name = title_of(mine.case.runner)
            return f"{name} with {preset}: 99 of 100 tokens take no more than {three_figures(1000 * slowest)} ms"
    return "Time per token"


def _against_float(report: Report, presets: Sequence[str]) -> tuple[Result, Result, float] | None:
    """Returns our variant, the float variant and the quality kept, for the first preset that has all three."""
    for preset, mine in _own(report, presets).items():
        floats, kept = main_results(report, preset).get("fp32"), quality_kept(report, mine)
        if floats is not None and kept is not None and floats is not mine:
            return mine, floats, kept
    return None


def quality_speed_title(report: Report, presets: Sequence[str]) -> str:
    """Returns what our variant gains in speed, and the quality that it keeps."""
    found = _against_float(report, presets)
    if found is None:
        return "Quality and speed"
    mine, floats, kept = found
    ratio = DECODE.gain(mine, floats) or 0
    name = f"{title_of(mine.case.runner)} keeps {percent(kept)} of float32's quality"
    return f"{name} at {times(ratio)} its speed" if ratio >= 1 else name


def quality_size_title(report: Report, presets: Sequence[str]) -> str:
    """Returns what our variant saves on disk, and the quality that it keeps."""
    found = _against_float(report, presets)
    if found is None:
        return "Quality and size"
    mine, floats, kept = found
    ratio = DISK.gain(mine, floats)
    name = f"{title_of(mine.case.runner)} keeps {percent(kept)} of float32's quality"
    return name if ratio is None else f"{name} in {100 / ratio:.0f} % of its size"


def threads_title(report: Report, presets: Sequence[str]) -> str:
    """Returns what the most threads gain over one, where that is more than the noise."""
    gains: dict[str, float | None] = {}
    name, most = "", 0
    for preset, mine in _own(report, presets).items():
        setting = main_setting(report, preset)
        same = [
            result
            for result in measured(report)
            if (result.case.preset, result.case.runner) == (preset, mine.case.runner)
            and setting_of(result.case) == setting
        ]
        if len({result.case.threads for result in same}) < 2:
            continue
        name, most = title_of(mine.case.runner), max(result.case.threads for result in same)
        one = fastest(result for result in same if result.case.threads == min(one.case.threads for one in same))
        many = fastest(result for result in same if result.case.threads == most)
        gains[preset] = DECODE.lead(many, one) if many is not None and one is not None else None
    if not gains:
        return "Speed by threads"
    quicker = [f"{times(gain)} with {preset}" for preset, gain in gains.items() if gain is not None]
    return f"{most} threads make {name} " + (f"faster: {in_a_list(quicker)}" if quicker else "no faster")


def depth_title(report: Report, presets: Sequence[str]) -> str:
    """Returns the share of its speed that our variant keeps in the fullest context that was measured."""
    kept = []
    name = ""
    for preset, mine in _own(report, presets).items():
        setting = largest_setting(report, preset, "depth")
        if setting is not None:
            name = title_of(mine.case.runner)
            deep = at_best_threads(report, preset, setting)[mine.case.runner]
            kept.append(f"{100 * speed(deep) / speed(mine):.0f} % with {preset}")
    return f"{name} keeps {in_a_list(kept)} of its speed in a fuller context" if kept else "Speed by depth"
