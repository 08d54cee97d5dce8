"""Which results decide: the best thread count of every side, and where a peer is ahead of ours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from benchmarks.report.metrics import CRITERIA, DECODE, Criterion, noise
from benchmarks.report.record import MEASURED, Case, Report, Result
from benchmarks.run.runners import TORCH_EAGER
from runtimes.bundle.store import VARIANT_FILES
from slm.presets import PRESETS


class Setting(NamedTuple):
    """What was asked of a side, apart from its threads; ordered from the easiest on."""

    batch: int
    depth: int
    prompt_tokens: int

    def __str__(self) -> str:
        return f"prompt {self.prompt_tokens}, depth {self.depth}, batch {self.batch}"


def setting_of(case: Case) -> Setting:
    """The setting of a case."""
    return Setting(case.batch, case.depth, case.prompt_tokens)


def is_ours(side: str) -> bool:
    """Whether a side is a variant of our bundles; every other is a peer."""
    return side in VARIANT_FILES


def measured(report: Report) -> list[Result]:
    """The results that count: of a failed case nothing does, whatever samples it left."""
    return [result for result in report.results if result.status == MEASURED]


def presets_of(report: Report) -> list[str]:
    """Presets that were measured, failed or skipped: those we ship from small to large, then others."""
    found = dict.fromkeys(result.case.preset for result in report.results)
    return [name for name in PRESETS if name in found] + [name for name in found if name not in PRESETS]


def sides_of(report: Report) -> list[str]:
    """Sides with a speed, ours first, in the report's order."""
    found = list(dict.fromkeys(result.case.side for result in measured(report) if result.decode is not None))
    return sorted(found, key=lambda side: not is_ours(side))


def fastest(results: Iterable[Result]) -> Result | None:
    """The result that decodes the most tokens a second, None where none has a speed."""
    speeds = [(result.decode.median, result) for result in results if result.decode is not None]
    return max(speeds, key=lambda pair: pair[0])[1] if speeds else None


def at_best_threads(report: Report, preset: str, setting: Setting) -> dict[str, Result]:
    """Every side of a preset at its best thread count under one setting, the fastest first."""
    groups: dict[str, list[Result]] = {}
    for result in measured(report):
        if result.case.preset == preset and setting_of(result.case) == setting and result.decode is not None:
            groups.setdefault(result.case.side, []).append(result)
    best = [found for found in map(fastest, groups.values()) if found is not None]
    return {found.case.side: found for found in sorted(best, key=lambda one: -(one.decode.median if one.decode else 0))}


def deciding_setting(report: Report, preset: str) -> Setting | None:
    """The setting under which the most sides of a preset have a speed, the easiest of several; None without any."""
    sides: dict[Setting, set[str]] = {}
    for result in measured(report):
        if result.case.preset == preset and result.decode is not None:
            sides.setdefault(setting_of(result.case), set()).add(result.case.side)
    return min(sides, key=lambda setting: (-len(sides[setting]), setting), default=None)


def deciding(report: Report, preset: str) -> dict[str, Result]:
    """Every side of a preset at its best thread count under the deciding setting, the fastest first."""
    setting = deciding_setting(report, preset)
    return {} if setting is None else at_best_threads(report, preset, setting)


def float_ratio(report: Report, result: Result) -> float | None:
    """Decoded tokens a second relative to PyTorch's float model at its best thread count; None without either."""
    beside = at_best_threads(report, result.case.preset, setting_of(result.case))
    return DECODE.gain(result, beside[TORCH_EAGER]) if TORCH_EAGER in beside else None


def _best(criterion: Criterion, results: Iterable[Result]) -> Result | None:
    found = [(samples.median, result) for result in results if (samples := criterion.samples(result)) is not None]
    if not found:
        return None
    return (max if criterion.more_is_better else min)(found, key=lambda pair: pair[0])[1]


class Lead(NamedTuple):
    """A peer's result that is `ratio` times better than our best variant's under the same setting."""

    ratio: float
    peer: Result
    ours: Result


def _leads(report: Report, preset: str, side: str, criterion: Criterion) -> tuple[list[Lead], int]:
    """Where a peer is ahead of our best variant, the farthest first, and how many settings both were measured in."""
    of_preset = [result for result in measured(report) if result.case.preset == preset]
    leads, settings = [], 0
    for setting in sorted({setting_of(result.case) for result in of_preset}):
        beside = [result for result in of_preset if setting_of(result.case) == setting]
        ours = _best(criterion, [result for result in beside if is_ours(result.case.side)])
        peer = _best(criterion, [result for result in beside if result.case.side == side])
        if ours is None or peer is None:
            continue
        settings += 1
        ratio = criterion.gain(peer, ours)
        if ratio is not None and ratio > 1:
            leads.append(Lead(ratio, peer, ours))
    return sorted(leads, key=lambda lead: -lead.ratio), settings


def _clause(criterion: Criterion, leads: list[Lead], settings: int) -> str:
    ratio, peer, ours = leads[0]
    text = f"{ratio:.2f}x {criterion.ahead} than {ours.case.side}"
    one, other = criterion.samples(peer), criterion.samples(ours)
    if one is not None and other is not None and abs(ratio - 1) <= noise(one, other):
        text += ", which is within the noise"
    if settings > 1:
        text = f"up to {text}"
    return text if len(leads) == settings else f"{text} (in {len(leads)} of {settings} settings)"


def _sentence(report: Report, preset: str, side: str) -> str | None:
    """All in which a peer is ahead of the best of our variants, and what either loses; None where it is in nothing."""
    found = [(criterion, *_leads(report, preset, side, criterion)) for criterion in CRITERIA]
    clauses = [_clause(criterion, leads, settings) for criterion, leads, settings in found if leads]
    if not clauses:
        return None
    losses: dict[str, float] = {}
    for _, leads, _ in found:
        for result in leads[0][1:] if leads else ():
            if result.loss is not None:
                losses[result.case.side] = result.loss
    text = f"On {preset}, {side} is {', '.join(clauses)}."
    if side in losses and len(losses) > 1:
        text += f" Quality loss: {', '.join(f'{name} {loss:+.2%}' for name, loss in losses.items())}."
    return text


def _shared_settings(report: Report, preset: str) -> set[Setting]:
    """Settings under which both a variant of ours and a peer have a speed."""
    ours: set[Setting] = set()
    peers: set[Setting] = set()
    for result in measured(report):
        if result.case.preset == preset and result.decode is not None:
            (ours if is_ours(result.case.side) else peers).add(setting_of(result.case))
    return ours & peers


def verdict(report: Report) -> list[str]:
    """Where a peer beats the best of our variants, a sentence for each preset and peer; else that none does."""
    sides = sides_of(report)
    peers = [side for side in sides if not is_ours(side)]
    if not peers or len(peers) == len(sides):
        return ["No peer was measured beside our variants."]
    if not any(_shared_settings(report, preset) for preset in presets_of(report)):
        return ["No peer was measured under the same setting as our variants."]
    found = [_sentence(report, preset, side) for preset in presets_of(report) for side in peers]
    return [sentence for sentence in found if sentence is not None] or [
        "No peer beats the best of our variants in speed, time to first token, memory or disk space."
    ]
