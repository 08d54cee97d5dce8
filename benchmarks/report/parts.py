"""The folded parts of a report. The HTML page and the Markdown show the same ones, in the same order."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.report import claims
from benchmarks.report.headline import RULE, other_warnings
from benchmarks.report.leaderboard import measured, presets_of
from benchmarks.report.record import FAILED, SKIPPED, Report
from benchmarks.report.table import Table
from benchmarks.report.tables import (
    batch_table,
    case_table,
    choice_table,
    leads_table,
    machine_table,
    main_table,
    preset_table,
    prompt_table,
    trouble_table,
)
from slm.console.counted import counted

END = "The JSON file of this report has every sample."


@dataclass(frozen=True)
class Part:
    """A folded part.

    Attributes:
        title: What is in it. It is visible when the part is folded.
        tables: Its tables.
        notes: Sentences after the tables.
    """

    title: str
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def folded_parts(report: Report) -> list[Part]:
    """Returns the folded parts that have content, the figures of other people last."""
    parts = [
        Part("Where another runtime is ahead", [leads_table(report)]),
        Part("What slmx chooses", [choice_table(report)]),
        Part("Several stories together", [batch_table(report)]),
        Part("The longest prompt", [prompt_table(report)]),
    ]
    main = main_table(report)
    for preset in presets_of(report):
        cases = sum(result.case.preset == preset for result in measured(report))
        if not cases:
            continue
        figures = preset_table(report, preset)
        title = f"{preset}: all {cases} cases" if figures == main else f"{preset}: main figures and all {cases} cases"
        parts.append(Part(title, [*([] if figures == main else [figures]), case_table(report, preset)]))
    for status in (FAILED, SKIPPED):
        table, count = trouble_table(report, status), sum(result.status == status for result in report.results)
        parts.append(Part(f"{status.capitalize()}: {counted(count, 'case')}", [table]))
    warnings = other_warnings(report)
    parts.append(
        Part(f"Warnings that change nothing above: {len(warnings)}", notes=[*warnings, RULE] if warnings else [])
    )
    parts.append(Part("Machine and models", [machine_table(report)]))
    parts.append(Part("Published figures", [claims.literature_table(report)], [claims.note(report)]))
    return [part for part in parts if part.notes or any(table.rows for table in part.tables)]


def facts(report: Report) -> str:
    """Returns the machine and the day in a few words."""
    machine = report.machine
    cores = machine.get("cores", "")
    words = [machine.get("cpu", "unknown processor"), f"{cores} core{'s' * (cores != '1')}" if cores else ""]
    words += [f"{name} {machine[name]}" for name in ("onnxruntime", "torch") if name in machine]
    return ", ".join(filter(None, [*words, report.created[:10]]))
