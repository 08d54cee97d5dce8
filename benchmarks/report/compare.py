"""Two reports side by side: what got faster or smaller, what slower or larger, and what of it is noise."""

from __future__ import annotations

import re
from dataclasses import dataclass

from benchmarks.report.fields import three_figures
from benchmarks.report.leaderboard import setting_of
from benchmarks.report.metrics import CRITERIA, Criterion, noise
from benchmarks.report.record import FAILED, MEASURED, Case, Report, Result
from runtimes.system.timing import Samples
from slm.errors import SlmxError


@dataclass(frozen=True)
class Change:
    """A criterion of a case in both reports, with the samples of each."""

    case: Case
    criterion: Criterion
    old: Samples
    new: Samples

    @property
    def ratio(self) -> float:
        """New relative to old."""
        return self.new.median / self.old.median

    @property
    def noise(self) -> float:
        """How far from 1 the ratio may be by chance."""
        return noise(self.old, self.new)

    @property
    def beyond_noise(self) -> bool:
        """Whether the ratio is farther from 1 than chance brings it."""
        return abs(self.ratio - 1) > self.noise

    @property
    def better(self) -> bool:
        """Whether the new report is ahead."""
        return (self.ratio > 1) == self.criterion.more_is_better

    def regressed(self, limit: float) -> bool:
        """Whether it got worse by more than the noise and by more than `limit`, a share of the old figure."""
        return self.beyond_noise and not self.better and abs(self.ratio - 1) > limit

    def line(self) -> str:
        """The change for people."""
        word = self.criterion.better if self.better else self.criterion.worse
        old, new = (three_figures(samples.median * self.criterion.scale) for samples in (self.old, self.new))
        return (
            f"{word}: {label(self.case)}: {self.criterion.title} {old} -> {new} {self.criterion.unit} "
            f"({self.ratio:.2f}x, noise {self.noise:.0%})"
        )


@dataclass(frozen=True)
class Comparison:
    """All changes of the cases that both reports measured, and what cannot be compared.

    `broken` are cases that the old report measured and that fail in the new one, with the note.
    """

    changes: list[Change]
    broken: list[tuple[Case, str]]
    only_old: list[Case]
    only_new: list[Case]
    warnings: list[str]

    def regressions(self, limit: float) -> list[str]:
        """What got worse beyond the noise by more than `limit`, and what fails now, a line each."""
        worse = [change.line() for change in self.changes if change.regressed(limit)]
        return [f"fails now: {label(case)}: {note}" for case, note in self.broken] + worse

    def lines(self) -> list[str]:
        """The comparison for people: warnings, what changed beyond the noise, what is in one report only."""
        moved = [change for change in self.changes if change.beyond_noise]
        told = [f"warning: {warning}" for warning in self.warnings]
        for better in (True, False):
            told += [change.line() for change in moved if change.better is better]
        told.append(f"{len(self.changes) - len(moved)} of {len(self.changes)} figures are within the noise")
        told += [f"only in the old report: {label(case)}" for case in self.only_old]
        told += [f"only in the new report: {label(case)}" for case in self.only_new]
        return told


def label(case: Case) -> str:
    """A case in a few words."""
    threads = "1 thread" if case.threads == 1 else f"{case.threads} threads"
    return f"{case.preset} {case.side}, {threads}, {setting_of(case)}, {case.new_tokens} new"


def share(text: str) -> float:
    """A percentage such as 10% as a share; SlmxError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text.strip(), re.ASCII)
    if found is None:
        raise SlmxError(f"--fail-over {text!r}: not a percentage; write it like 10%")
    return float(found[1]) / 100


def _changes(case: Case, old: Result, new: Result) -> list[Change]:
    found = []
    for criterion in CRITERIA:
        before, after = criterion.samples(old), criterion.samples(new)
        if before is not None and after is not None:
            found.append(Change(case, criterion, before, after))
    return found


def compare_reports(old: Report, new: Report) -> Comparison:
    """Compare the cases that both reports have measured; SlmxError when there are none."""
    before = {result.case: result for result in old.results if result.status == MEASURED}
    after = {result.case: result for result in new.results if result.status == MEASURED}
    failed = {result.case: result.note for result in new.results if result.status == FAILED}
    broken = [(case, failed[case]) for case in before if case in failed]
    if not before.keys() & (after.keys() | failed.keys()):
        raise SlmxError("the two reports measured no case in common; measure both with the same settings")
    differ = [
        f"{name}: {old.machine.get(name, 'unknown')} before, {new.machine.get(name, 'unknown')} now"
        for name in dict.fromkeys((*old.machine, *new.machine))
        if name != "commit" and old.machine.get(name) != new.machine.get(name)
    ]
    return Comparison(
        changes=[change for case in before if case in after for change in _changes(case, before[case], after[case])],
        broken=broken,
        only_old=[case for case in before if case not in after and case not in failed],
        only_new=[case for case in after if case not in before],
        warnings=[f"not the same machine: {difference}" for difference in differ],
    )
