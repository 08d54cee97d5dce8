"""The sentence that a report begins with: how fast our recommended variant is, and where another runtime is ahead.

Every word is computed. A runtime that was not measured is not mentioned. A difference within the noise is not a lead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.report.families import LLAMA_CPP, PYTORCH, title_of
from benchmarks.report.fields import percent, three_figures
from benchmarks.report.leaderboard import (
    at_best_threads,
    families,
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
from benchmarks.report.metrics import DECODE, DISK, METRICS, Metric
from benchmarks.report.record import FAILED, Report, Result
from benchmarks.report.warnings import BEFORE, STOPPED, busy_share
from runtimes.bundle.variants import VARIANTS
from slm.presets import PRESETS

REFERENCE = LLAMA_CPP.name  # the peer that most readers know
FLOAT = "fp32"
# Filled shares of the context that have words of their own, and how near a share must be.
SHARES = {0.25: "a quarter", 0.5: "half", 0.75: "three quarters"}
NEAR = 0.04
EQUAL = 0.1  # how far the medians of two runners that are called as fast may be apart

# Which warnings stand beside the sentences.
RULE = (
    "A warning stands beside the first sentence if it can change what the sentences say: the run was stopped, a runner "
    "failed, or other processes used a quarter of the cores. Less is enough if it explains the smallest lead of a "
    "sentence, such as a tenth of the cores for a lead of 1.1x."
)
LARGE_SHARE = 0.25


@dataclass(frozen=True)
class Headline:
    """The sentences about one model. `text` is the whole.

    Attributes:
        preset: The model.
        start: The words before the figure.
        figure: The decoded tokens per second.
        rest: What the figure is compared with.
        others: Sentences: which runtimes are as fast or ahead. It is empty if there are none.
        smallest_lead: The smallest number of times by which we lead in speed; None without a lead.
    """

    preset: str
    start: str
    figure: str
    rest: str
    others: str
    smallest_lead: float | None = None

    @property
    def text(self) -> str:
        """The sentences."""
        return f"{self.start}{self.figure}{self.rest}.{' ' * bool(self.others)}{self.others}"


def times(ratio: float) -> str:
    """Returns a ratio for people: 1.4x, 17x."""
    return f"{ratio:.0f}x" if ratio >= 9.95 else f"{ratio:.1f}x" if ratio >= 1.095 else f"{ratio:.2f}x"


def in_a_list(words: Sequence[str]) -> str:
    """Returns words as a list in a sentence."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _name(family: str, results: Sequence[Result]) -> str:
    """Returns the name of a runner that is alone in its family, or the family's with "best"."""
    if len(results) > 1:
        return f"{family}'s best"
    return title_of(results[0].case.runner) if family != PYTORCH.name else family


def _best(metric: Metric, results: Sequence[Result], own: Result) -> float | None:
    """Returns by how many times the best of some results leads ours in a metric; None if none of them leads."""
    return max((lead for result in results if (lead := metric.lead(result, own)) is not None), default=None)


def _fastest_speed(results: Sequence[Result]) -> Result:
    return max(results, key=speed)


def how_full(report: Report, preset: str, tokens: int) -> str:
    """Returns how full the context is with some tokens in it: "when its context is half full", or "after 90 tokens"."""
    model, known = report.models.get(preset), PRESETS.get(preset)
    context = model.context_tokens if model is not None and model.context_tokens else None
    context = context or (known.config.block_size if known is not None else None)
    for share, words in SHARES.items():
        if context and abs(tokens / context - share) < NEAR:
            return f"when its context is {words} full"
    return f"after {tokens:,} tokens"


def _at_depth(report: Report, preset: str, own: Result) -> str:
    setting = largest_setting(report, preset, "depth")
    if setting is None:
        return ""
    deep = at_best_threads(report, preset, setting)[own.case.runner]
    return f" ({three_figures(speed(deep))} {how_full(report, preset, setting.depth)})"


def _compared(report: Report, own: Result, groups: dict[str, list[Result]]) -> tuple[list[str], float | None]:
    """Returns the comparisons that name PyTorch, one peer, the size and the quality, and the smallest lead in speed."""
    phrases, leads = [], []
    peers = {family: results for family, results in groups.items() if family != PYTORCH.name}
    behind = {family: lead for family, results in groups.items() if (lead := _speed_lead(own, results)) is not None}
    named = (
        REFERENCE if REFERENCE in peers else max(behind.keys() & peers.keys(), key=lambda one: -behind[one], default="")
    )
    for family in (PYTORCH.name, named):
        if family in behind:
            leads.append(behind[family])
            phrases.append(f"{times(behind[family])} {_name(family, groups[family])}")
    floats = main_results(report, own.case.preset).get(FLOAT)
    smaller = None if floats is None else DISK.lead(own, floats)
    if smaller is not None:
        phrases.append(f"{times(smaller)} smaller than float32")
    kept = quality_kept(report, own)
    if kept is not None and not VARIANTS[own.case.runner].is_float:
        phrases.append(f"at {percent(kept)} of its quality" if smaller else f"at {percent(kept)} of float32's quality")
    return phrases, min(leads, default=None)


def _speed_lead(own: Result, results: Sequence[Result]) -> float | None:
    """Returns by how many times we lead the fastest of some results in speed; None if we do not."""
    return DECODE.lead(own, _fastest_speed(results))


def _others(own: Result, groups: dict[str, list[Result]]) -> list[str]:
    """Returns sentences about the runtimes that are as fast or too uneven to say, and about those that are ahead."""
    level: list[str] = []
    uneven: list[str] = []
    ahead: dict[str, dict[str, float]] = {}
    for family, results in groups.items():
        found = {metric.topic: lead for metric in METRICS if (lead := _best(metric, results, own)) is not None}
        if found:
            ahead[family] = found
        if DECODE.topic not in found and _speed_lead(own, results) is None:
            gain = DECODE.gain(own, _fastest_speed(results)) or 0
            (level if abs(gain - 1) <= EQUAL else uneven).append(family)
    sentences = [f"{in_a_list(level)} {'is' if len(level) == 1 else 'are'} as fast"] if level else []
    if uneven:
        sentences.append(f"{in_a_list(uneven)} cannot be told apart from it, because the rounds differ too much")
    parts: list[str] = []
    for family, found in sorted(ahead.items(), key=lambda pair: -max(pair[1].values())):
        where = in_a_list([f"{topic} ({times(lead)})" for topic, lead in found.items()])
        parts.append(f"{family} in {where}" if parts else f"{family} is ahead in {where}")
    return [*sentences, *([", ".join(parts)] if parts else [])]


def _headline(report: Report, own: Result, start: str, model: str) -> Headline:
    preset = own.case.preset
    groups = families(main_results(report, preset))
    phrases, smallest = _compared(report, own, groups)
    colon = ", " if len(phrases) == 1 and phrases[0].startswith("at ") else ": "
    rest = f"{model}{_at_depth(report, preset, own)}" + (f"{colon}{', '.join(phrases)}" if phrases else "")
    figure = f"{three_figures(speed(own))} tokens/s"
    return Headline(preset, start, figure, rest, " ".join(f"{one}." for one in _others(own, groups)), smallest)


def headlines(report: Report) -> list[Headline]:
    """Returns the sentences for each model of which a variant of ours was measured. A report begins with the first."""
    results = [own for preset in presets_of(report) if (own := ours(report, preset)) is not None]
    found: list[Headline] = []
    for own in results:
        preset, runner = own.case.preset, own.case.runner
        random = ["random weights"] if preset in report.models and not report.models[preset].trained else []
        if own is results[0]:
            model = ", ".join([f" with {preset}", *random])
            found.append(_headline(report, own, f"On this machine {title_of(runner)} writes ", model))
        else:
            other = [] if runner == results[0].case.runner else [title_of(runner)]
            found.append(_headline(report, own, f"{', '.join([preset, *other, *random])}: ", ""))
    return found


def opening(report: Report) -> str:
    """Returns the sentences with which a report begins, or what is missing for them."""
    found = headlines(report)
    if found:
        return found[0].text
    return "No variant of slmx was measured." if measured(report) else "Nothing was measured."


def caveats(report: Report) -> list[str]:
    """Returns what can change the sentences, as `RULE` says. It stands beside them."""
    return [*_stopped(report), *_failures(report), *_disturbed(report)]


def _stopped(report: Report) -> list[str]:
    return [warning for warning in report.warnings if warning == STOPPED]


def _failures(report: Report) -> list[str]:
    found: dict[str, list[str]] = {}
    for preset in presets_of(report):
        setting, known = main_setting(report, preset), main_results(report, preset)
        for result in report.results:
            case = result.case
            if result.status != FAILED or case.preset != preset or case.runner in known:
                continue
            if setting is None or setting_of(case) == setting:
                runners = found.setdefault(preset, [])
                if title_of(case.runner) not in runners:
                    runners.append(title_of(case.runner))
    return [f"{preset}: {in_a_list(runners)} failed and cannot be compared" for preset, runners in found.items()]


def _disturbed(report: Report) -> list[str]:
    shares = {}
    for one in headlines(report):
        explains = 1 - 1 / one.smallest_lead if one.smallest_lead else LARGE_SHARE
        shares[f"{one.preset}, {main_setting(report, one.preset)}: "] = min(LARGE_SHARE, explains)
    shares[BEFORE] = min(shares.values(), default=LARGE_SHARE)
    found = []
    for warning in report.warnings:
        share = busy_share(warning)
        least = next((least for start, least in shares.items() if warning.startswith(start)), None)
        if share is not None and least is not None and share >= least:
            found.append(warning)
    return found


def other_warnings(report: Report) -> list[str]:
    """Returns the warnings that change nothing in the sentences."""
    serious = caveats(report)
    return [warning for warning in report.warnings if warning not in serious]
