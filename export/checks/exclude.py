"""Which matrices hurt when int8 loses too much, and what it costs to leave just those in float."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export.checks.float_model import Judge
from export.formats.graph import matrix_names
from export.formats.quantize import RECIPES, Int8Recipe, quantize_int8
from runtimes.engine.session import Session
from runtimes.system.timing import alternate, decode_seconds
from runtimes.types import SamplingParams
from slm.errors import SlmxError

SEARCH_TOKENS = 1024
STEPS = 64
ROUNDS = 7

Say = Callable[[str], None]


@dataclass(frozen=True)
class Exclusion:
    """Matrices left in float, worst first, and the price: bytes, and time of a step relative to all in int8."""

    names: list[str]
    loss_without: float
    bytes_added: int
    step_time_ratio: float

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


def losses_alone(judge: Judge, fp32: Path, recipe: Int8Recipe) -> dict[str, float]:
    """Worst relative loss when one matrix alone is quantized, by name, the worst first."""
    brief, trial = judge.shortened(SEARCH_TOKENS), fp32.with_name("trial.onnx")
    losses: dict[str, float] = {}
    for name in _quantizable(judge, recipe):
        quantize_int8(fp32, trial, recipe, only={name})
        losses[name] = brief.verdict(trial).worst_loss
    trial.unlink()
    return dict(sorted(losses.items(), key=lambda item: -item[1]))


def _quantizable(judge: Judge, recipe: Int8Recipe) -> list[str]:
    names = matrix_names(judge.model.config.n_layer)
    return names if recipe.table else names[:-1]


def recipes_that_pass(judge: Judge, fp32: Path, limit: float) -> list[str]:
    """Names of the recipes whose loss stays within a limit."""
    trial = fp32.with_name("trial.onnx")
    passing = []
    for recipe in RECIPES.values():
        quantize_int8(fp32, trial, recipe)
        if judge.verdict(trial).worst_loss <= limit:
            passing.append(recipe.name)
    trial.unlink()
    return passing


def exclude_auto(judge: Judge, fp32: Path, target: Path, recipe: Int8Recipe, limit: float, say: Say) -> Exclusion:
    """Write `target` with the worst matrices left in float, as few as bring the loss within the limit.

    SlmxError when even all of them in float would not.
    """
    whole = fp32.with_name("whole.onnx")
    quantize_int8(fp32, whole, recipe)
    names = list(losses_alone(judge, fp32, recipe))
    loss_without = judge.verdict(whole).worst_loss
    for count in range(1, len(names)):
        quantize_int8(fp32, target, recipe, only=set(names[count:]))
        loss = judge.verdict(target).worst_loss
        say(f"int8: {loss:+.2%} with {', '.join(names[:count])} in float")
        if loss <= limit:
            break
    else:
        raise SlmxError(f"int8 ({recipe.name}): no exclusion brings its loss within {limit:.0%}; export without --int8")
    ratio = _step_time_ratio(target, whole, judge)
    added = target.stat().st_size - whole.stat().st_size
    whole.unlink()
    return Exclusion(names[:count], loss_without, added, ratio)


def _step_time_ratio(one: Path, other: Path, judge: Judge) -> float:
    """Time of a greedy step, one graph against another, in turn on one thread."""
    config = judge.model.config
    steps = min(STEPS, config.block_size - 1)

    def side(path: Path) -> Callable[[], float]:
        session = Session.open(path, config, threads=1)
        return lambda: decode_seconds(session, [0], SamplingParams(temperature=0), steps)

    samples = alternate({"one": side(one), "other": side(other)}, ROUNDS)
    return samples["one"].median / samples["other"].median
