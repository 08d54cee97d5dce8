"""The comparison of two reports: which speeds, sizes and qualities changed, and which changes exceed the noise."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.report.fields import printable, three_figures
from benchmarks.report.leaderboard import setting_of
from benchmarks.report.metrics import METRICS, Metric, noise
from benchmarks.report.record import FAILED, MEASURED, Case, Report, Result
from runtimes.system.timing import Samples
from slm.console.counted import counted
from slm.console.errors import SlmxError, UsageError

# Smaller changes are not reported, because other processors and versions of the packages round differently.
QUALITY_NOISE = 0.001


@dataclass(frozen=True)
class Change:
    """A metric of a case in both reports, with the samples of each."""

    case: Case
    metric: Metric
    old: Samples
    new: Samples

    @property
    def ratio(self) -> float:
        """The new median relative to the old one."""
        return self.new.median / self.old.median

    @property
    def noise(self) -> float:
        """The distance of the ratio from 1 that chance can cause."""
        return noise(self.old, self.new)

    @property
    def beyond_noise(self) -> bool:
        """Whether the ratio is farther from 1 than the noise."""
        return abs(self.ratio - 1) > self.noise

    @property
    def better(self) -> bool:
        """Whether the new figure is better than the old one."""
        return (self.ratio > 1) == self.metric.more_is_better

    def regressed(self, limit: float) -> bool:
        """Returns whether the figure got worse by more than the noise and by more than `limit`, a share of the old."""
        return self.beyond_noise and not self.better and abs(self.ratio - 1) > limit

    def line(self) -> str:
        """Returns the change as one readable line."""
        word = self.metric.better if self.better else self.metric.worse
        old, new = (three_figures(samples.median * self.metric.scale) for samples in (self.old, self.new))
        return (
            f"{word}: {label(self.case)}: {self.metric.title} {old} -> {new} {self.metric.unit} "
            f"({self.ratio:.2f}x, noise {self.noise:.0%})"
        )


@dataclass(frozen=True)
class QualityChange:
    """The bits per byte of a runner in both reports.

    Attributes:
        preset: The name of the model.
        runner: The name of the runner.
        old: Its bits per byte in the old report.
        new: Its bits per byte in the new report.
    """

    preset: str
    runner: str
    old: float
    new: float

    @property
    def rise(self) -> float:
        """The rise of the bits per byte, a share of the old ones; below 0 if the quality got better."""
        return self.new / self.old - 1

    @property
    def beyond_noise(self) -> bool:
        """Whether the rise or fall is larger than `QUALITY_NOISE`."""
        return abs(self.rise) > QUALITY_NOISE

    def regressed(self, limit: float) -> bool:
        """Returns whether the quality got worse by more than the noise and by more than `limit`, a share of the old."""
        return self.rise > max(limit, QUALITY_NOISE)

    def line(self) -> str:
        """Returns the change as one readable line."""
        word = "worse quality" if self.rise > 0 else "better quality"
        return f"{word}: {self.preset} {self.runner}: {self.old:.4f} -> {self.new:.4f} bits per byte ({self.rise:+.1%})"


@dataclass(frozen=True)
class Comparison:
    """The comparison of two reports.

    Attributes:
        changes: Every figure of the cases that both reports measured.
        qualities: The quality of each runner that both reports measured, if they describe the text in the same words.
        broken: Cases that the old report measured and that failed in the new one, each with its note.
        only_old: Cases that only the old report measured.
        only_new: Cases that only the new report measured.
        warnings: Differences of the machine and of the packages, which make the reports hard to compare.
    """

    changes: list[Change]
    qualities: list[QualityChange]
    broken: list[tuple[Case, str]]
    only_old: list[Case]
    only_new: list[Case]
    warnings: list[str]

    def regressions(self, limit: float) -> list[str]:
        """Returns a line for each case that fails now, and for each figure that got worse by more than `limit`."""
        worse = [change.line() for change in self.changes if change.regressed(limit)]
        worse += [change.line() for change in self.qualities if change.regressed(limit)]
        fails = [f"fails now: {label(case)}: {note}" for case, note in self.broken]
        return [printable(line) for line in (*fails, *worse)]

    def lines(self) -> list[str]:
        """Returns warnings, what both reports have, changes beyond the noise, and counts of the rest."""
        moved = [change for change in self.changes if change.beyond_noise]
        lines = [f"warning: {warning}" for warning in self.warnings]
        common = list(dict.fromkeys([*(change.case for change in self.changes), *(case for case, _ in self.broken)]))
        lines.append(f"in both reports: {_counted(common)}: {_runners(common)}")
        for better in (True, False):
            lines += [change.line() for change in moved if change.better is better]
        lines += [change.line() for change in self.qualities if change.beyond_noise]
        figures = len(self.changes) + len(self.qualities)
        same = figures - len(moved) - sum(change.beyond_noise for change in self.qualities)
        lines.append(f"{same} of {figures} figures are within the noise")
        for which, cases in (("old", self.only_old), ("new", self.only_new)):
            if cases:
                lines.append(f"only in the {which} report: {_counted(cases)}, which cannot be compared")
        return [printable(line) for line in lines]


def _counted(cases: Sequence[Case]) -> str:
    """Returns the number of cases, and how many of each model if there are several."""
    counts = Counter(case.preset for case in cases)
    each = f" ({', '.join(f'{preset} {count}' for preset, count in counts.items())})" if len(counts) > 1 else ""
    return f"{counted(len(cases), 'case')}{each}"


def _runners(cases: Sequence[Case]) -> str:
    """Returns the models of cases, each with its runners."""
    found: dict[str, list[str]] = {}
    for case in cases:
        found.setdefault(case.preset, []).append(case.runner)
    return "; ".join(f"{preset} {', '.join(dict.fromkeys(runners))}" for preset, runners in found.items())


def label(case: Case) -> str:
    """Returns a case in a few words."""
    threads = counted(case.threads, "thread")
    return f"{case.preset} {case.runner}, {threads}, {setting_of(case)}, {case.new_tokens} new"


def share(text: str) -> float:
    """Returns a percentage such as "10%" as a share; UsageError for any other text."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text.strip(), re.ASCII)
    if found is None:
        raise UsageError(f"--fail-over {text!r}: not a percentage; write it like 10%")
    return float(found[1]) / 100


def _changes(case: Case, old: Result, new: Result) -> list[Change]:
    found = []
    for metric in METRICS:
        before, after = metric.samples(old), metric.samples(new)
        if before is not None and after is not None:
            found.append(Change(case, metric, before, after))
    return found


def _qualities(before: Mapping[Case, Result], after: Mapping[Case, Result]) -> list[QualityChange]:
    now = {(case.preset, case.runner): result.bits_per_byte for case, result in after.items()}
    then = {(case.preset, case.runner): result.bits_per_byte for case, result in before.items()}
    return [
        QualityChange(*runner, bits, new)
        for runner, bits in then.items()
        if bits and (new := now.get(runner)) is not None
    ]


def _measured(which: str, report: Report) -> dict[Case, Result]:
    found: dict[Case, Result] = {}
    for result in report.results:
        if result.status == MEASURED and found.setdefault(result.case, result) is not result:
            raise SlmxError(f"the {which} report has a case twice ({printable(label(result.case))}); measure it again")
    return found


def compare_reports(old: Report, new: Report) -> Comparison:
    """Compares the cases that both reports measured.

    Raises:
        SlmxError: There is no such case, or a report has a case twice.
    """
    before, after = _measured("old", old), _measured("new", new)
    failed = {result.case: result.note for result in new.results if result.status == FAILED}
    broken = [(case, failed[case]) for case in before if case in failed]
    sides = (("old", before), ("new", after))
    if not before.keys() & (after.keys() | failed.keys()):
        have = [f"{which}: {label(next(iter(cases)))}" if cases else f"{which}: none" for which, cases in sides]
        raise SlmxError(
            f"the two reports measured no case in common ({'; '.join(have)}); measure both with the same settings"
        )
    warnings = [
        f"not the same {name}: {old.machine.get(name, 'unknown')} before, {new.machine.get(name, 'unknown')} now"
        for name in dict.fromkeys((*old.machine, *new.machine))
        if name != "commit" and old.machine.get(name) != new.machine.get(name)
    ]
    if old.text and new.text and old.text != new.text:
        warnings.append(f"quality was measured on {old.text} before, on {new.text} now, and is not compared")
    return Comparison(
        changes=[change for case in before if case in after for change in _changes(case, before[case], after[case])],
        qualities=_qualities(before, after) if old.text == new.text else [],
        broken=broken,
        only_old=[case for case in before if case not in after and case not in failed],
        only_new=[case for case in after if case not in before],
        warnings=warnings,
    )
