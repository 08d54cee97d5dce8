"""Ranks the runners, each at its best number of threads, and finds where a peer is better than our variants.

"Ours" are the variants of a bundle. PyTorch is the float model that they are compared with. Every other runner is a
peer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from benchmarks.report.metrics import DECODE, METRICS, Metric, noise
from benchmarks.report.record import MEASURED, TORCH_EAGER, TORCH_RUNNERS, Case, Report, Result
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
    """Return the setting of a case."""
    return Setting(case.batch, case.depth, case.prompt_tokens)


def is_ours(runner: str) -> bool:
    """Return whether a runner is a variant of a bundle."""
    return runner in VARIANTS


def is_peer(runner: str) -> bool:
    """Return whether a runner is neither a variant of a bundle nor PyTorch."""
    return not is_ours(runner) and runner not in TORCH_RUNNERS


def measured(report: Report) -> list[Result]:
    """Return the results of measured cases. Samples of a failed case do not count."""
    return [result for result in report.results if result.status == MEASURED]


def presets_of(report: Report) -> list[str]:
    """Return the models that were measured, failed or skipped: the shipped presets from small to large, then others."""
    found = dict.fromkeys(result.case.preset for result in report.results)
    return [name for name in PRESETS if name in found] + [name for name in found if name not in PRESETS]


def runners_of(report: Report) -> list[str]:
    """Return the runners with a speed: ours first, then the others, each group in the report's order."""
    found = list(dict.fromkeys(result.case.runner for result in measured(report) if result.decode is not None))
    return sorted(found, key=lambda runner: not is_ours(runner))


def fastest(results: Iterable[Result]) -> Result | None:
    """Return the result that decodes the most tokens per second; None if none has a speed."""
    speeds = [(result.decode.median, result) for result in results if result.decode is not None]
    return max(speeds, key=lambda pair: pair[0])[1] if speeds else None


def at_best_threads(report: Report, preset: str, setting: Setting) -> dict[str, Result]:
    """Return every runner's result at its best number of threads under one setting, the fastest runner first."""
    groups: dict[str, list[Result]] = {}
    for result in measured(report):
        if result.case.preset == preset and setting_of(result.case) == setting and result.decode is not None:
            groups.setdefault(result.case.runner, []).append(result)
    best = [found for found in map(fastest, groups.values()) if found is not None]
    return {
        found.case.runner: found for found in sorted(best, key=lambda one: -(one.decode.median if one.decode else 0))
    }


def _runners_by_setting(report: Report, preset: str, counts: Callable[[str], bool]) -> dict[Setting, set[str]]:
    """Return which runners, of those that count, have a speed under each setting."""
    found: dict[Setting, set[str]] = {}
    for result in measured(report):
        if result.case.preset == preset and result.decode is not None and counts(result.case.runner):
            found.setdefault(setting_of(result.case), set()).add(result.case.runner)
    return found


def main_setting(report: Report, preset: str) -> Setting | None:
    """Return the setting under which most runners have a speed; the easiest if several do. None without any speed."""
    runners = _runners_by_setting(report, preset, lambda runner: True)
    return min(runners, key=lambda setting: (-len(runners[setting]), setting), default=None)


def main_results(report: Report, preset: str) -> dict[str, Result]:
    """Return every runner's result at its best number of threads under the main setting, the fastest first."""
    setting = main_setting(report, preset)
    return {} if setting is None else at_best_threads(report, preset, setting)


def float_ratio(report: Report, result: Result) -> float | None:
    """Return the decode speed relative to eager PyTorch at its best number of threads; None if one is unknown."""
    others = at_best_threads(report, result.case.preset, setting_of(result.case))
    return DECODE.gain(result, others[TORCH_EAGER]) if TORCH_EAGER in others else None


def _best(metric: Metric, results: Iterable[Result]) -> Result | None:
    found = [(samples.median, result) for result in results if (samples := metric.samples(result)) is not None]
    if not found:
        return None
    return (max if metric.more_is_better else min)(found, key=lambda pair: pair[0])[1]


class Lead(NamedTuple):
    """A result of another runner that is `ratio` times better than our best variant's under the same setting."""

    ratio: float
    other: Result
    ours: Result


def _leads(report: Report, preset: str, runner: str, metric: Metric) -> tuple[list[Lead], int]:
    """Return where a runner is better than our best variant, and the number of settings in which both were measured.

    The largest lead comes first.
    """
    of_preset = [result for result in measured(report) if result.case.preset == preset]
    leads, settings = [], 0
    for setting in sorted({setting_of(result.case) for result in of_preset}):
        same = [result for result in of_preset if setting_of(result.case) == setting]
        ours = _best(metric, [result for result in same if is_ours(result.case.runner)])
        other = _best(metric, [result for result in same if result.case.runner == runner])
        if ours is None or other is None:
            continue
        settings += 1
        ratio = metric.gain(other, ours)
        if ratio is not None and ratio > 1:
            leads.append(Lead(ratio, other, ours))
    return sorted(leads, key=lambda lead: -lead.ratio), settings


def _clause(metric: Metric, leads: list[Lead], settings: int) -> str:
    ratio, other, ours = leads[0]
    text = f"{ratio:.2f}x {metric.comparative} than {ours.case.runner}"
    theirs, own = metric.samples(other), metric.samples(ours)
    if theirs is not None and own is not None and abs(ratio - 1) <= noise(theirs, own):
        text += ", which is within the noise"
    if settings > 1:
        text = f"up to {text}"
    return text if len(leads) == settings else f"{text} (in {len(leads)} of {settings} settings)"


def _sentence(report: Report, preset: str, runner: str) -> str | None:
    """Return where a runner is better than our best variant, and the quality of both; None if it is nowhere better."""
    found = [(metric, *_leads(report, preset, runner, metric)) for metric in METRICS]
    clauses = [_clause(metric, leads, settings) for metric, leads, settings in found if leads]
    if not clauses:
        return None
    increases: dict[str, float] = {}
    for _, leads, _ in found:
        for result in leads[0][1:] if leads else ():
            if result.bpb_increase is not None:
                increases[result.case.runner] = result.bpb_increase
    text = f"On {preset}, {runner} is {', '.join(clauses)}."
    if runner in increases and len(increases) > 1:
        figures = ", ".join(f"{name} {increase:+.2%}" for name, increase in increases.items())
        text += f" Increase of the bits per byte: {figures}."
    return text


def _has_peer(report: Report, preset: str) -> bool:
    """Return whether a peer was measured on a model under the same setting as one of our variants."""
    ours, peers = (_runners_by_setting(report, preset, counts) for counts in (is_ours, is_peer))
    return bool(ours.keys() & peers.keys())


def verdict(report: Report) -> list[str]:
    """Return where PyTorch or a peer is better than the best of our variants, a sentence for each model and runner.

    If no peer is better, or if none was measured, a last sentence says so.
    """
    presets, runners = presets_of(report), runners_of(report)
    if all(map(is_ours, runners)) or not any(map(is_ours, runners)):
        return ["No other runtime was measured beside our variants."]
    found = {
        (preset, runner): sentence
        for preset in presets
        for runner in runners
        if not is_ours(runner) and (sentence := _sentence(report, preset, runner)) is not None
    }
    sentences = list(found.values())
    if not any(map(is_peer, runners)):
        return [*sentences, "No other runtime was measured beside our variants."]
    compared = [preset for preset in presets if _has_peer(report, preset)]
    if not compared:
        return [*sentences, "No other runtime was measured under the same setting as our variants."]
    if not any(is_peer(runner) for _, runner in found):
        where = "No" if len(compared) == len(presets) else f"On {', '.join(compared)}, no"
        end = "peer beats the best of our variants in speed, time to first token, memory or disk space."
        sentences.append(f"{where} {end}")
    return sentences
