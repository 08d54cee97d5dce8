"""The sentences about speed and quality in README.md, from docs/benchmarks.json. `cog -r README.md` puts them there."""

from __future__ import annotations

import json

from benchmarks.child import ROOT
from benchmarks.report.families import LLAMA_CPP
from benchmarks.report.fields import percent
from benchmarks.report.headline import in_a_list, opening
from benchmarks.report.leaderboard import main_results, quality_kept
from benchmarks.report.reader import read_report

# The 8-bit runners that lose less than int8 in whole windows, with the names that people know them by.
MORE_EXACT = (("CTranslate2 int8", "CTranslate2 int8"), ("q8", "slmx q8"))
REPORT = ROOT / "docs" / "benchmarks.json"
AFTER_PROMPT, PROMPT = ROOT / "docs" / "quantization" / "after-prompt-nano.json", "64"


def headline() -> str:
    """Returns the first sentences of the report in docs/, with the machine and the day."""
    report = read_report(REPORT)
    machine = report.machine
    start, found = "On this machine", opening(report)
    assert found.startswith(start)
    where = f"On {machine['cores']} cores ({machine['cpu']})"
    return f"{where}{found.removeprefix(start)} (onnxruntime {machine['onnxruntime']}, {report.created[:10]}.)"


def quality() -> str:
    """Returns what text the quality in this sentence is that of, and the quality that llama.cpp's files keep."""
    report = read_report(REPORT)
    results = main_results(report, "nano")
    kinds = {kind: f"{LLAMA_CPP.name} {kind}" for kind in ("Q8_0", "Q4_0")}
    kept = {kind: results[name] for kind, name in kinds.items() if name in results}
    lines = [
        "Quality is the float model's [bits per byte](docs/glossary.md) divided by those of the variant, on the start",
        "of the validation text; [docs/quality-figures.md](docs/quality-figures.md) has the figures of the whole text.",
    ]
    if kept:
        shares = in_a_list([percent(quality_kept(report, result)) for result in kept.values()])
        better = f"Sizes and speeds of llama.cpp are those of the better of {in_a_list(list(kept))}"
        lines.append(f"{better}, which keep {shares} of nano's quality.")
    own = quality_kept(report, results["int8"]) or 1
    more = [
        f"{title} ({percent(share)})"
        for name, title in MORE_EXACT
        if name in results and (share := quality_kept(report, results[name]) or 0) > own
    ]
    if more:
        lines.append(f"{in_stories()} In whole windows of text, as here, it keeps less than {in_a_list(more)}.")
    return "\n".join(lines)


def in_stories() -> str:
    """Returns what int8 loses in the stories of nano."""
    after = json.loads(AFTER_PROMPT.read_text("utf-8"))["results"][PROMPT]["prompt in one pass"]["value"]
    return f"After a prompt of {PROMPT} tokens, a story in int8 needs {after * 100:.2f} % more bits per byte."
