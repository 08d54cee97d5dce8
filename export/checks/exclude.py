"""Which matrices hurt when int8 loses too much, and what it costs to leave just those in float."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from export.checks.float_model import FloatModel
from export.formats.graph import matrix_names
from export.formats.quantize import RECIPES, Int8Recipe, quantize_int8
from runtimes.bundle.manifest import Exclusion
from runtimes.engine.sampler import SamplingParams
from runtimes.engine.session import Session
from runtimes.system.timing import alternate, decode_seconds
from slm.errors import SlmxError

SEARCH_TOKENS = 1024
STEPS = 64
ROUNDS = 7

Say = Callable[[str], None]


def increases_alone(float_model: FloatModel, fp32: Path, recipe: Int8Recipe) -> dict[str, float]:
    """Worst relative loss when one matrix alone is quantized, by name, the worst first."""
    brief, trial = float_model.shortened(SEARCH_TOKENS), fp32.with_name("trial.onnx")
    increases: dict[str, float] = {}
    for name in _quantizable(float_model, recipe):
        quantize_int8(fp32, trial, recipe, only={name})
        increases[name] = brief.compare(trial).worst_bpb_increase
    trial.unlink()
    return dict(sorted(increases.items(), key=lambda item: -item[1]))


def _quantizable(float_model: FloatModel, recipe: Int8Recipe) -> list[str]:
    names = matrix_names(float_model.model.config.n_layer)
    return names if recipe.table else names[:-1]


def recipes_that_pass(float_model: FloatModel, fp32: Path, limit: float) -> list[str]:
    """Names of the recipes whose loss stays within a limit."""
    trial = fp32.with_name("trial.onnx")
    passing = []
    for recipe in RECIPES.values():
        quantize_int8(fp32, trial, recipe)
        if float_model.compare(trial).worst_bpb_increase <= limit:
            passing.append(recipe.name)
    trial.unlink()
    return passing


def exclude_auto(
    float_model: FloatModel, fp32: Path, target: Path, recipe: Int8Recipe, limit: float, say: Say
) -> Exclusion:
    """Write `target` with the worst matrices left in float, as few as bring the loss within the limit.

    SlmxError when even all of them in float would not.
    """
    whole = fp32.with_name("whole.onnx")
    quantize_int8(fp32, whole, recipe)
    names = list(increases_alone(float_model, fp32, recipe))
    bpb_increase_without = float_model.compare(whole).worst_bpb_increase
    for count in range(1, len(names)):
        quantize_int8(fp32, target, recipe, only=set(names[count:]))
        loss = float_model.compare(target).worst_bpb_increase
        say(f"int8: {loss:+.2%} with {', '.join(names[:count])} in float")
        if loss <= limit:
            break
    else:
        raise SlmxError(f"int8 ({recipe.name}): no exclusion brings its loss within {limit:.0%}; export without --int8")
    ratio = _step_time_ratio(target, whole, float_model)
    added = target.stat().st_size - whole.stat().st_size
    whole.unlink()
    return Exclusion(tuple(names[:count]), bpb_increase_without, added, ratio)


def _step_time_ratio(one: Path, other: Path, float_model: FloatModel) -> float:
    """Time of a greedy step, one graph against another, in turn on one thread."""
    config = float_model.model.config
    steps = min(STEPS, config.block_size - 1)

    def side(path: Path) -> Callable[[], float]:
        session = Session.open(path, config, threads=1)
        return lambda: decode_seconds(session, [0], SamplingParams(temperature=0), steps)

    samples = alternate({"one": side(one), "other": side(other)}, ROUNDS)
    return samples["one"].median / samples["other"].median
