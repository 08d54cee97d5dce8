"""Ranks the runners, each at its best number of threads.

"Ours" are the variants of a bundle. PyTorch is the float model that they are compared with. Every other runner is a
peer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from benchmarks.report.families import PYTORCH, SAME_WEIGHTS, SLMX, Family, family_of, is_ours
from benchmarks.report.metrics import DECODE, Metric
from benchmarks.report.record import MEASURED, TORCH_RUNNERS, Case, Report, Result
from runtimes.bundle.variants import VARIANTS
from slm.presets import PRESETS


class Setting(NamedTuple):
    """The work in a case, without the number of threads. Settings sort from easy to hard."""

    batch: int
    depth: int
    prompt_tokens: int

    def __str__(self) -> str:
        return f"prompt {self.prompt_tokens}, depth {self.depth}, batch {self.batch}"


def setting_of(case: Case) -> Setting:
    """Returns the setting of a case."""
    return Setting(case.batch, case.depth, case.prompt_tokens)


def measured(report: Report) -> list[Result]:
    """Returns the results of measured cases. Samples of a failed case do not count."""
    return [result for result in report.results if result.status == MEASURED]


def presets_of(report: Report) -> list[str]:
    """Returns the models that were measured, failed or skipped: the presets from small to large, then others."""
    found = dict.fromkeys(result.case.preset for result in report.results)
    return [name for name in PRESETS if name in found] + [name for name in found if name not in PRESETS]


def speed(result: Result) -> float:
    """Returns the decoded tokens per second; 0 if they were not measured."""
    return result.decode.median if result.decode is not None else 0.0


def fastest(results: Iterable[Result]) -> Result | None:
    """Returns the result that decodes the most tokens per second; None if none has a speed."""
    return max((result for result in results if result.decode is not None), key=speed, default=None)


def _at_fewest_threads(results: Sequence[Result], metric: Metric) -> Result:
    """Returns the one with the fewest threads among the results that are not worse than the best beyond the noise."""
    top = max(results, key=metric.rank)
    equal = [result for result in results if result is top or metric.lead(top, result) is None]
    return min(equal, key=lambda result: result.case.threads)


def at_best_threads(report: Report, preset: str, setting: Setting, metric: Metric = DECODE) -> dict[str, Result]:
    """Returns every runner's result at its best number of threads under one setting, the best runner first.

    One of ours has the fewest threads that are as good within the noise. Every other one has those with the best
    median, so noise never favours ours.
    """
    groups: dict[str, list[Result]] = {}
    for result in measured(report):
        if result.case.preset == preset and setting_of(result.case) == setting and result.decode is not None:
            groups.setdefault(result.case.runner, []).append(result)
    best = (
        _at_fewest_threads(group, metric) if is_ours(runner) else max(group, key=metric.rank)
        for runner, group in groups.items()
    )
    return {found.case.runner: found for found in sorted(best, key=metric.rank, reverse=True)}


def main_setting(report: Report, preset: str) -> Setting | None:
    """Returns the setting under which most runners have a speed; the easiest if several do. None without any speed."""
    runners: dict[Setting, set[str]] = {}
    for result in measured(report):
        if result.case.preset == preset and result.decode is not None:
            runners.setdefault(setting_of(result.case), set()).add(result.case.runner)
    return min(runners, key=lambda setting: (-len(runners[setting]), setting), default=None)


def main_results(report: Report, preset: str) -> dict[str, Result]:
    """Returns every runner's result at its best number of threads under the main setting, the fastest first."""
    setting = main_setting(report, preset)
    return {} if setting is None else at_best_threads(report, preset, setting)


def recommended(runners: Iterable[str]) -> str | None:
    """Returns the variant that slmx prefers among these runners; None if none of them is a variant."""
    return min(filter(is_ours, runners), key=lambda runner: VARIANTS[runner].preference, default=None)


def ours(report: Report, preset: str) -> Result | None:
    """Returns the result of the recommended variant under the main setting; None if no variant was measured."""
    results = main_results(report, preset)
    runner = recommended(results)
    return None if runner is None else results[runner]


def in_order(runners: Iterable[str]) -> list[str]:
    """Returns runners in the order of tables: the recommended variant, our other variants, then all others.

    Within a group they keep the order in which they are given.
    """
    given = list(runners)
    first = recommended(given)
    return sorted(given, key=lambda runner: (runner != first, not is_ours(runner)))


def families(results: Mapping[str, Result]) -> dict[str, list[Result]]:
    """Returns results by the names of their families, without ours."""
    found: dict[str, list[Result]] = {}
    for runner, result in results.items():
        if family_of(runner) != SLMX:
            found.setdefault(family_of(runner).name, []).append(result)
    return found


def contenders(results: Mapping[str, Result]) -> list[Result]:
    """Returns the runners that charts compare: the recommended variant, and the fastest of each other family.

    The fastest comes first.
    """
    first = recommended(results)
    chosen = [fastest(group) for group in families(results).values()]
    chosen += [results[first]] if first is not None else []
    return sorted((result for result in chosen if result is not None), key=speed, reverse=True)


def largest_setting(report: Report, preset: str, part: Literal["batch", "depth", "prompt_tokens"]) -> Setting | None:
    """Returns the setting with the largest value of one part in which the recommended variant has a speed.

    Its other parts are those of the main setting. It is None if no value is larger than that of the main setting.
    """
    setting, own = main_setting(report, preset), ours(report, preset)
    if setting is None or own is None:
        return None
    found = [
        setting_of(result.case)
        for result in measured(report)
        if result.case.preset == preset and result.case.runner == own.case.runner and result.decode is not None
    ]
    like_main = [one for one in found if one._replace(**{part: getattr(setting, part)}) == setting]
    largest = max(like_main, key=lambda one: getattr(one, part))
    return None if largest == setting else largest


def family_ratio(report: Report, result: Result, family: Family, metric: Metric) -> float | None:
    """Returns how many times better a result is than the best of a family under the same setting; None if unknown."""
    others = at_best_threads(report, result.case.preset, setting_of(result.case), metric)
    gains = [metric.gain(result, other) for runner, other in others.items() if family_of(runner) == family]
    return min((gain for gain in gains if gain is not None), default=None)


def float_ratio(report: Report, result: Result) -> float | None:
    """Returns the decode speed relative to the fastest PyTorch runner in the same setting; None if one is unknown."""
    return family_ratio(report, result, PYTORCH, DECODE)


def quality_increase(report: Report, result: Result) -> float | None:
    """Returns the increase of bits per byte relative to the float model; None if it is unknown.

    A peer that computes with the weights of a variant has the quality of that variant.
    """
    if result.bpb_increase is not None:
        return result.bpb_increase
    variant = SAME_WEIGHTS.get(result.case.runner)
    equal = (variant, *TORCH_RUNNERS) if variant == "fp32" else (variant,)
    known = (
        other.bpb_increase
        for other in report.results
        if other.case.preset == result.case.preset and other.case.runner in equal and other.bpb_increase is not None
    )
    return next(known, None)


def quality_kept(report: Report, result: Result) -> float | None:
    """Returns the float model's bits per byte divided by the runner's; None if unknown. 1 is the full quality."""
    increase = quality_increase(report, result)
    return None if increase is None else 1 / (1 + increase)
