"""How likely an outside model finds endings, in figures and in a table that also has their variety."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evaluation.figures import interval
from benchmarks.evaluation.intervals import ratio
from benchmarks.evaluation.reading import Advance
from benchmarks.evaluation.scorer.kinds import Scorer, nats_of
from benchmarks.evaluation.stories import Ending
from benchmarks.report.table import UNKNOWN, Table, table
from slm.console.errors import SlmxError

SCORER = "outside model"
REASON = (
    "A low perplexity alone does not mean a good ending: an outside model hardly notices a lost thread and likes "
    "repetition, which lowers distinct-2, the share of different pairs of words."
)


def measure(scorer: Scorer, path: Path, sha256: str, endings: Sequence[Ending], advance: Advance) -> dict[str, Any]:
    """Measures the endings of one model.

    Args:
        scorer: The outside model.
        path: Where it is from.
        sha256: Its hash.
        endings: The endings.
        advance: Called after each.

    Returns:
        The figures for JSON. Endings that do not fit the scorer's context are counted and left out.

    Raises:
        SlmxError: No ending fits its context, or its logits are NaN or infinite.
    """
    rows = []
    for ending in endings:
        found = nats_of(scorer, ending.opening, ending.text)
        if found is not None:
            rows.append((*found, len(ending.text.encode())))
        advance(1)
    if not rows:
        raise SlmxError(f"--scorer {path}: no story fits its context of {scorer.context} tokens; give another one")
    nats, tokens, size = np.array(rows, np.float64).T
    if not np.isfinite(nats).all():
        raise SlmxError(f"--scorer {path}: its logits are NaN or infinite; give another one")
    return {
        "scorer": path.name,
        "sha256": sha256,
        "endings": len(rows),
        "too long": len(endings) - len(rows),
        "perplexity per byte": ratio(nats, size).exponential(),
        "perplexity per token": ratio(nats, tokens).exponential(),
    }


def scorer_table(results: Mapping[str, Any]) -> list[Table]:
    """Returns the table. No perplexity is shown without the variety beside it."""
    rows = []
    names = set()
    for name, suites in results.items():
        found, variety = suites.get(SCORER), suites.get("stories")
        if found is not None and variety is not None:
            names.add(found["scorer"])
            per = [interval(found[f"perplexity per {unit}"], ".3f") for unit in ("byte", "token")]
            pooled = variety.get("distinct-2 of all")
            kinds = [interval(variety.get("distinct-2"), ".3f"), UNKNOWN if pooled is None else f"{pooled:.3f}"]
            rows.append([name, *per, *kinds, str(found["endings"]), str(found["too long"])])
    note = f"{', '.join(sorted(names))} reads each ending after its opening. {REASON} ± is half of the 95 % interval."
    columns = ("model", "perplexity per byte", "per token", "distinct-2", "distinct-2 of all", "endings", "too long")
    return table("Outside model", note, columns, rows)
