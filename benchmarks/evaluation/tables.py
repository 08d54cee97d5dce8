"""The tables of an evaluation. Every printer shows the same tables."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from benchmarks.evaluation.controls import CONTROLS, noticed
from benchmarks.evaluation.figures import form_of_difference, interval, number, percent
from benchmarks.evaluation.judge.table import judge_table
from benchmarks.evaluation.novelty import LARGEST_N
from benchmarks.evaluation.reading import Way
from benchmarks.evaluation.run import TRUE, Evaluation
from benchmarks.evaluation.scorer.suite import scorer_table
from benchmarks.report.table import UNKNOWN, Table, table

SHOWN_N = (1, 2, 3, 4, 6, 8, 12, LARGEST_N)
PERCENT = (
    "of at least the measured words",
    "ends properly",
    "repeated 4-grams",
    "unknown words",
    "names kept",
    "answers to oneself",
)


def tables(found: Evaluation) -> list[Table]:
    """Returns all tables of an evaluation."""
    return [
        *_loss(found.results),
        *_differences(found.differences),
        *_pairs(found.results),
        *_pair_differences(found.pair_differences),
        *_stories(found.results),
        *_novelty(found.results),
        *_controls(found.results),
        *judge_table(found.results),
        *scorer_table(found.results),
    ]


def _loss(results: Mapping[str, Any]) -> list[Table]:
    rows = []
    for name, suites in results.items():
        for way in Way:
            figures = suites.get("loss", {}).get(way.value)
            if figures is not None:
                perplexity = number(figures["perplexity"]["value"], ".3f")
                cells = [interval(figures["bits per byte"]), interval(figures["nats per token"]), perplexity]
                rows.append([name, way.value, *cells, f"{figures['tokens']:,}"])
    note = "Smaller is better. ± is half of the 95 % interval, clustered by story."
    columns = ("model", "read in", "bits per byte", "nats per token", "perplexity", "tokens")
    return table("Loss", note, columns, rows, keys=2) + _positions(results)


def _positions(results: Mapping[str, Any]) -> list[Table]:
    curves = {name: suites["loss"]["by position"] for name, suites in results.items() if "loss" in suites}
    if not curves:
        return []
    longest = max(curves.values(), key=len)
    columns = ["model", *(_range(group) for group in longest)]
    rows = [[name, *(f"{group['nats']:.2f}" for group in curve)] for name, curve in curves.items()]
    rows = [row + [UNKNOWN] * (len(columns) - len(row)) for row in rows]
    return table("Loss by position", "Nats per token after so many tokens of the window.", columns, rows)


def _range(group: Mapping[str, int]) -> str:
    return f"{group['from']}" if group["from"] == group["to"] else f"{group['from']}-{group['to']}"


def _differences(differences: Mapping[str, Any]) -> list[Table]:
    rows = []
    second = "bits per byte of the second"  # which results of earlier versions do not have
    has_second = any(second in figures for ways in differences.values() for figures in ways.values())
    for name, ways in differences.items():
        for way, figures in ways.items():
            cells = [
                *[interval(figures[second]) if second in figures else UNKNOWN] * has_second,
                _more(figures["share"]),
                "no" if figures["contains zero"] else "yes",
                number(figures["smallest difference"], ".5f"),
            ]
            late = figures.get("divergence, 99 %")
            cells += [UNKNOWN] * 2 if late is None else [f"{figures['divergence']['value']:.5f}", f"{late:.4f}"]
            same = figures.get("same most likely token")
            cells.append(UNKNOWN if same is None else f"{100 * same['value']:.2f} %")
            change = figures.get("change, root mean square")
            cells.append(UNKNOWN if change is None else f"{100 * change:.3f} %")
            rows.append([name, way, *cells])
    note = (
        "Both models predict the same text. More: bits per byte, in percent. Differs: whether that can be told from 0 "
        "(95 %). Shows: the smallest difference in bits per byte that would have been found with a chance of 80 %. "
        "KL: the divergence in nats, its mean and 99th percentile. Same: how often both have the same most likely "
        "token. Change: that of the true token's probability, root mean square. Models of different tokenizers or "
        f"contexts have no figures of single tokens ({UNKNOWN})."
    )
    columns = (
        "models",
        "read in",
        *["the second"] * has_second,
        "more",
        "differs",
        "shows",
        "KL",
        "KL 99%",
        "same",
        "change",
    )
    return table("Differences", note, columns, rows, keys=2)


def _more(share: Mapping[str, Any]) -> str:
    percents = [100 * (share[part] or 0) for part in ("value", "low", "high")]
    form = form_of_difference(percents[0], (percents[2] - percents[1]) / 2)
    return f"{interval(share, f'+{form}', 100).replace('± +', '± ')} %"


def _pairs(results: Mapping[str, Any]) -> list[Table]:
    found = {name: suites["pairs"] for name, suites in results.items() if "pairs" in suites}
    kinds = list(next(iter(found.values()), {}))
    cells = {name: [percent(pairs[kind]["accuracy"]) for kind in kinds] for name, pairs in found.items()}
    note = "The share of pairs of which the right text is more likely. Chance is 50 %, a person is near 100 %."
    return table("Pairs of sentences", note, ("model", *kinds), [[name, *row] for name, row in cells.items()])


def _pair_differences(differences: Mapping[str, Any]) -> list[Table]:
    kinds = list(next(iter(differences.values()), {}))
    rows = [[name, *(_points(pairs[kind]) for kind in kinds)] for name, pairs in differences.items()]
    note = "Percentage points more on the same pairs. A difference without the mark * cannot be told from 0."
    return table("Differences in the pairs", note, ("models", *kinds), rows)


def _points(figures: Mapping[str, Any]) -> str:
    told = interval(figures["accuracy more"], "+.1f", 100).replace("± +", "± ")
    return told if figures["contains zero"] else f"{told} *"


def _stories(results: Mapping[str, Any]) -> list[Table]:
    found = {name: suites["stories"] for name, suites in results.items() if "stories" in suites}
    if not found:
        return []
    names = sorted(found, key=_place)
    figures = list(dict.fromkeys(figure for name in names for figure in found[name]))
    blind = blind_figures(results)
    rows = [[_title(figure, blind), *(_cell(figure, found[name].get(figure)) for name in names)] for figure in figures]
    note = "Endings for the beginnings of held-out stories. The column of the true stories is the line to come near to."
    marked = [place for place, figure in enumerate(figures) if figure in blind]
    return table("Stories", note, ("figure", *names), rows, marked)


def _title(figure: str, blind: Collection[str]) -> str:
    return f"{figure} (blind)" if figure in blind else figure


def _cell(figure: str, value: object) -> str:
    if isinstance(value, dict):
        return percent(value) if figure in PERCENT else interval(value, ".3f")
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if isinstance(value, float) else UNKNOWN


def _novelty(results: Mapping[str, Any]) -> list[Table]:
    rows = []
    for name, suites in sorted(results.items(), key=lambda item: _place(item[0])):
        figures = suites.get("novelty")
        if figures is not None:
            shares = [percent(figures["new n-grams"][str(n)]) for n in SHOWN_N]
            rows.append(
                [name, *shares, number(figures["mean longest copy"], ".1f"), str(figures["longest copy"]["words"])]
            )
    note = "The share of n-grams that the training text does not have, and the longest copies in words."
    mean = _title("mean longest copy", blind_figures(results))
    columns = ("model", *(f"n = {n}" for n in SHOWN_N), mean, "longest copy")
    return table("Novelty", note, columns, rows)


def _place(name: str) -> int:
    """Returns the rank of a row: models, then the true stories, then the controls."""
    return 2 if name in CONTROLS else int(name == TRUE)


def blind_figures(results: Mapping[str, Any]) -> set[str]:
    """Returns the figures that do not put the control that is made for them last."""
    return {CONTROLS[name].figure for name, is_last in noticed(results).items() if not is_last}


def _controls(results: Mapping[str, Any]) -> list[Table]:
    told = {True: "yes", False: "no: the figure is blind to it"}
    found = noticed(results)
    rows = [[name, CONTROLS[name].figure, told[is_last]] for name, is_last in found.items()]
    note = (
        "Bad endings that are made on purpose. A figure counts only if it puts its control behind "
        "every model and the true stories."
    )
    blind = [place for place, is_last in enumerate(found.values()) if not is_last]
    return table("Controls", note, ("control", "figure", "behind them"), rows, blind)
