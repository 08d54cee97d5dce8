"""Finds the matrices that cause the loss of int8, and leaves only those in float."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from export.checks.float_model import FloatModel
from export.formats.graph import matrix_names
from export.formats.quantize import quantize_int8
from export.formats.recipes import Int8Recipe, get_recipe
from runtimes.bundle.manifest import Exclusion
from runtimes.engine.decode_time import decode_seconds
from runtimes.engine.session import Session
from runtimes.system.timing import alternate
from runtimes.types import SamplingParams
from slm.console.errors import SlmxError
from slm.console.notice import Log

# Predictions compared for each matrix alone, and the greedy steps and rounds that are timed.
SEARCH_TOKENS = 1024
STEPS = 64
ROUNDS = 7


def increases_alone(float_model: FloatModel, fp32: Path, recipe: Int8Recipe) -> dict[str, float]:
    """Quantizes each matrix alone and compares the result with the float model.

    Args:
        float_model: The model, and the text of which the first `SEARCH_TOKENS` are read.
        fp32: The float32 graph; a trial file is written beside it and removed.
        recipe: How to quantize.

    Returns:
        The worst relative rise in bits per byte by matrix, the largest first.
    """
    shortened, trial = float_model.shortened(SEARCH_TOKENS), fp32.with_name("trial.onnx")
    names = matrix_names(float_model.model.config)
    increases: dict[str, float] = {}
    for name in names if recipe.table else names[:-1]:
        quantize_int8(fp32, trial, recipe, only={name})
        increases[name] = shortened.compare(trial).worst_bpb_increase
    trial.unlink()
    return dict(sorted(increases.items(), key=lambda item: -item[1]))


def recipes_that_pass(float_model: FloatModel, fp32: Path, limit: float, names: Iterable[str]) -> list[str]:
    """Returns those of the named recipes whose relative rise in bits per byte stays within a limit."""
    trial = fp32.with_name("trial.onnx")
    passing = []
    for recipe in map(get_recipe, names):
        quantize_int8(fp32, trial, recipe)
        if float_model.compare(trial).worst_bpb_increase <= limit:
            passing.append(recipe.name)
    trial.unlink()
    return passing


def exclude_auto(
    float_model: FloatModel,
    fp32: Path,
    target: Path,
    recipe: Int8Recipe,
    increase_without: float,
    limit: float,
    log: Log,
) -> Exclusion:
    """Replaces an int8 graph by one that stays within a limit with as few matrices in float as possible, worst first.

    Args:
        float_model: The model and the text to compare on.
        fp32: The float32 graph; a working file is written beside it and removed.
        target: The graph with every matrix in int8, which is replaced.
        recipe: How to quantize.
        increase_without: The relative rise in bits per byte of that graph.
        limit: The largest relative rise in bits per byte that is allowed.
        log: Called with one line for each number of matrices that is tried.

    Returns:
        The matrices that stay in float, and what they cost in bytes and time.

    Raises:
        SlmxError: The limit is not reached even with all matrices but one in float.
    """
    whole = target.replace(fp32.with_name("whole.onnx"))
    names = list(increases_alone(float_model, fp32, recipe))
    for count in range(1, len(names)):
        quantize_int8(fp32, target, recipe, only=set(names[count:]))
        increase = float_model.compare(target).worst_bpb_increase
        log(f"int8: {increase:+.2%} bits per byte with {', '.join(names[:count])} in float")
        if increase <= limit:
            break
    else:
        raise SlmxError(
            f"int8 ({recipe.name}): no exclusion keeps the rise in bits per byte within {limit:.0%}; "
            "export without --int8"
        )
    ratio = _step_time_ratio(target, whole, float_model)
    added = target.stat().st_size - whole.stat().st_size
    whole.unlink()
    return Exclusion(tuple(names[:count]), increase_without, added, ratio)


def _step_time_ratio(one: Path, other: Path, float_model: FloatModel) -> float:
    """Returns the time of a greedy step of one graph relative to another's, measured in turn on one thread."""
    config = float_model.model.config
    steps = min(STEPS, config.block_size - 1)

    def timed(path: Path) -> Callable[[], float]:
        session = Session.open(path, config, threads=1)
        return lambda: decode_seconds(session, [0], SamplingParams(temperature=0), steps)

    samples = alternate({"one": timed(one), "other": timed(other)}, ROUNDS)
    return samples["one"].median / samples["other"].median
